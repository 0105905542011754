// The host and its accelerators, with their course over the last minutes.

import { byId, h, keyed, mark, parts, say } from "../dom.js";
import { Chart } from "../chart.js";
import { bytes, percent, span } from "../format.js";

const HOUR = 3600;

export class Devices {
  update(store) {
    const { host = {}, devices = [], sources = [] } = store.tick;
    const memory = ratio((host.memory_total_bytes ?? 0) - (host.memory_available_bytes ?? 0), host.memory_total_bytes);
    const rows = [
      {
        key: "host",
        title: "Host",
        value: percent((host.cpu_percent ?? 0) / 100),
        unit: "processor",
        about: [
          `${host.cpu_count ?? 0} processors`,
          host.cpu_limit ? `limit ${host.cpu_limit.toFixed(1)}` : null,
          `load ${(host.load_1m ?? 0).toFixed(1)}`,
          `front ${bytes(store.tick.front_rss_bytes ?? 0)}`,
        ],
        meters: [
          ["Memory", memory, `${bytes(host.memory_available_bytes)} of ${bytes(host.memory_total_bytes)} free`],
          ["Disk", ratio(host.disk_total_bytes - host.disk_free_bytes, host.disk_total_bytes), `${bytes(host.disk_free_bytes)} of ${bytes(host.disk_total_bytes)} free`],
        ],
        course: store.hour("host.cpu_percent", (value) => value / 100, (point) => point.cpu ?? 0),
        second: store.hour("host.memory_available_bytes", (value) => ratio(host.memory_total_bytes - value, host.memory_total_bytes), (point) => point.memory ?? 0),
      },
      ...devices.map((device, i) => accelerator(store, device, i)),
    ];
    keyed(byId("device-list"), rows, (row) => row.key, make, (card, row) => fill(card, row, store));
    const absent = sources.filter((source) => source.state === "absent").map((source) => source.detail);
    const host_card = byId("device-list").firstChild;
    if (host_card) say(parts(host_card).note, devices.length ? "" : absent.join(" · "));
  }
}

function ratio(part, whole) {
  return whole ? part / whole : 0;
}

function accelerator(store, device, i) {
  const id = `${device.kind}${device.index}`;
  const power = device.power_watts ?? null;
  return {
    key: `${device.kind} ${device.index}`,
    title: device.name,
    value: device.utilization === undefined ? "–" : percent(device.utilization),
    unit: "busy",
    about: [
      device.kind,
      device.temperature_celsius ? `${Math.round(device.temperature_celsius)} °C` : null,
      power === null ? null : `${Math.round(power)} W${device.power_limit_watts ? ` of ${Math.round(device.power_limit_watts)} W` : ""}`,
      device.clock_hz ? `${Math.round(device.clock_hz / 1e6)} MHz` : null,
      (device.throttled ?? []).length ? `throttled: ${device.throttled.join(", ")}` : null,
    ],
    meters: device.memory_total_bytes
      ? [["Memory", ratio(device.memory_used_bytes ?? 0, device.memory_total_bytes), `${bytes(device.memory_used_bytes)} of ${bytes(device.memory_total_bytes)}`]]
      : [],
    course: store.hour(`${id}.utilization`, (value) => value, (point) => point.devices?.[i]?.[0] ?? null),
    second: store.hour(`${id}.memory_used_bytes`, (value) => ratio(value, device.memory_total_bytes), (point) => point.devices?.[i]?.[1] ?? null),
  };
}

function make(row) {
  const card = h("article", { class: "card device" },
    h("div", { class: "device-head" },
      h("h3", {}, row.title),
      h("p", {}, h("span", { class: "value", "data-part": "value" }), " ", h("small", { class: "muted" }, row.unit))),
    h("p", { class: "muted", "data-part": "span" }),
    h("p", { class: "muted", "data-part": "about" }),
    h("div", { class: "stack", "data-part": "meters" }),
    h("p", { class: "muted", "data-part": "note" }));
  card.chart = new Chart(row.title, { most: 1 });
  card.insertBefore(card.chart.element, card.children[1]);
  return card;
}

function fill(card, row, store) {
  const named = parts(card);
  say(named.value, row.value);
  say(named.about, row.about.filter(Boolean).join(" · "));
  keyed(named.meters, row.meters, ([name]) => name,
    ([name]) => h("div", { class: "kv" },
      h("div", {}, h("span", { class: "muted" }, name), h("span", {})),
      h("div", { class: "meter", "aria-hidden": "true" }, h("i"))),
    (element, [, used, text]) => {
      say(element.firstChild.lastChild, text);
      mark(element.lastChild, "class", `meter ${used > 0.97 ? "bad" : used > 0.9 ? "busy" : ""}`);
      element.lastChild.firstChild.style.transform = `scaleX(${Math.min(1, Math.max(0, used))})`;
    });
  const first = row.course.find(([at]) => at > store.now - HOUR)?.[0] ?? store.now;
  const width = Math.min(HOUR, Math.max(60, store.now - first));
  say(named.span, `Over ${span(width)}: ${row.unit}, and memory in the faint line.`);
  card.chart.draw(store.now, width, row.course, { second: row.second, told: `${row.title}: ${row.value} ${row.unit}` });
}
