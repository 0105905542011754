// Speed and load: six figures, each with its course over three minutes.

import { byId, h, say } from "../dom.js";
import { Chart } from "../chart.js";
import { count, percent, rate, short, split } from "../format.js";
import { perSecond } from "../store.js";

const SPAN = 180;

function ratio(part, whole) {
  return whole ? part / whole : 0;
}

function spread(field, totals) {
  return {
    value: (store) => split(store.tick.point[field]?.p50),
    note: (store) => `99 of 100 within ${split(store.tick.point[field]?.p99).join(" ").trim()}`,
    course: (point) => point[field]?.p50 ?? null,
    second: (point) => point[field]?.p99 ?? null,
    idle: totals,
  };
}

const TILES = [
  {
    title: "Generated tokens",
    value: (store) => [rate(store.rate("generated")), "/s"],
    note: (store, chart) => `at most ${rate(chart.peak)}/s · ${short(store.tick.totals?.generated ?? 0)} in all`,
    course: perSecond("generated"),
  },
  { title: "Time to first token", ...spread("first_token", "No request yet") },
  { title: "Between tokens", ...spread("between_tokens", "No stream yet") },
  {
    title: "KV cache in use",
    most: 1,
    value: (store) => [percent(ratio(store.tick.point.kv_used ?? 0, store.tick.point.kv_cells ?? 0)), ""],
    note: ({ tick: { point } }) => `${short(point.kv_used ?? 0)} of ${short(point.kv_cells ?? 0)} cells`,
    course: (point) => ratio(point.kv_used ?? 0, point.kv_cells ?? 0),
  },
  {
    title: "Streams",
    value: ({ tick: { point } }) => [count(point.running ?? 0), `of ${count(point.room)}`],
    note: ({ tick: { point } }) => `${count(point.waiting ?? 0)} waiting`,
    course: (point) => point.running ?? 0,
    second: (point) => (point.running ?? 0) + (point.waiting ?? 0),
  },
  {
    title: "Prompt tokens",
    value: (store) => [rate(store.rate("prompt", 10)), "/s"],
    note: ({ tick: { totals = {} } }) => `${percent(ratio(totals.cached ?? 0, totals.prompt ?? 0))} came from the prefix cache`,
    course: perSecond("prompt"),
  },
];

export class Tiles {
  constructor() {
    this.tiles = TILES.map((spec) => {
      const value = h("p", { class: "value" }, h("span", {}, "–"), h("small", {}));
      const note = h("p", { class: "note" });
      const chart = new Chart(spec.title, { most: spec.most ?? null });
      byId("tiles").append(h("article", { class: "card tile" }, h("h3", {}, spec.title), value, note, chart.element));
      return { spec, value, note, chart };
    });
  }

  update(store) {
    store.tick.point.room = store.limits.running;
    const deaths = store.deaths.filter((death) => !death.was_asked).map((death) => death.at);
    const span = store.spanned(SPAN);
    for (const { spec, value, note, chart } of this.tiles) {
      const [figure, unit] = spec.value(store);
      say(value.firstChild, figure);
      say(value.lastChild, unit);
      chart.draw(store.now, span, store.course(SPAN, spec.course), {
        second: spec.second ? store.course(SPAN, spec.second) : [],
        deaths,
        told: `${spec.title}: ${figure} ${unit}`,
      });
      say(note, spec.idle && figure === "–" ? spec.idle : spec.note(store, chart));
    }
  }
}
