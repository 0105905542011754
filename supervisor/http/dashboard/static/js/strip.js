// Draws the threads. The picture moves by one transform a second, which costs the browser little.

import { h, say, svg } from "./dom.js";
import { clock, pause } from "./format.js";
import { MOST_LANES } from "./threads.js";

const TOP = 44; // the flags of deaths, and the lives of workers
const BOTTOM = 20; // the clock
const HALF_A_CLOCK = 28; // px
const HEIGHT = 178;
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Strip {
  constructor(element) {
    this.picture = svg("svg");
    this.told = h("p", { class: "unseen" });
    this.note = h("p", { class: "strip-note" });
    this.empty = h("p", { class: "strip-empty" }, "No stream runs now.");
    this.view = h("div", { class: "strip-view", "aria-hidden": "true" }, this.picture,
      h("div", { class: "edge" }, h("span", { class: "of-workers" }, "workers"), h("span", { class: "of-streams" }, "streams")));
    element.append(this.view, this.note, this.empty, this.told);
  }

  draw(store) {
    const width = this.view.clientWidth;
    if (width === 0) return;
    const now = store.tick.point.at;
    const perSecond = width < 500 ? 6 : Math.max(6, width / 90);
    const span = width / perSecond;
    // what happens within the coming second is not known yet: the picture is a second late
    const right = now - 1;
    const x = (at) => width + (at - right) * perSecond;
    const drawn = { now, x, width, from: right - span - 2, perSecond };
    const threads = [...store.threads.all.values()].filter(
      (one) => one.lane < MOST_LANES && (one.to ?? now) > drawn.from,
    );
    const lanes = Math.max(3, ...threads.map((one) => one.lane + 1));
    const step = Math.min(14, (HEIGHT - TOP - BOTTOM - 6) / lanes);
    drawn.thick = Math.max(1.4, Math.min(4, step - 2.2));
    drawn.y = (lane) => TOP + 8 + step * (lane + 0.5);
    this.picture.setAttribute("width", Math.ceil(width + perSecond + 4));
    this.picture.replaceChildren(
      ticks(drawn),
      lives(drawn, store.threads.lives),
      ...store.threads.losses.filter((one) => one.at > drawn.from && touches(one)).map((one) => gap(drawn, one)),
      ...threads.map((one) => thread(drawn, one, store.threads)),
      ...flags(drawn, store.threads.losses.filter((one) => one.at > drawn.from)),
    );
    this.#move(perSecond);
    this.#tell(store, threads, now);
  }

  #move(perSecond) {
    this.moving?.cancel();
    if (still.matches || !this.picture.animate) {
      this.picture.style.transform = `translateX(${-perSecond}px)`;
      return;
    }
    this.moving = this.picture.animate(
      [{ transform: "translateX(0)" }, { transform: `translateX(${-perSecond * 1.5}px)` }],
      { duration: 1500, easing: "linear", fill: "forwards" },
    );
  }

  #tell(store, threads, now) {
    const running = threads.filter((one) => one.to === null).length;
    this.empty.hidden = threads.length > 0;
    const hidden = store.threads.unseen + [...store.threads.all.values()].filter((one) => one.to === null && one.lane >= MOST_LANES).length;
    say(this.note, hidden > 0 ? `and ${hidden} more` : "");
    const deaths = store.threads.losses.filter((one) => !one.was_asked && now - one.at < 90).length;
    say(this.told, `A picture of the streams over the last minutes: ${running} run now, and ${deaths} workers have died.`);
  }
}

// Asked for, and no stream has felt it
const isSoft = (death) => death.was_asked && !death.n_waiting && (death.longest_pause_s ?? 0) < 0.3;

const touches = (death) => (death.n_streams ?? 0) > 0;

function ticks({ now, x, width, from, perSecond }) {
  const group = svg("g");
  const every = perSecond * 15 < 76 ? 30 : 15;
  for (let at = Math.ceil(from / every) * every; at <= now + 1; at += every) {
    group.append(svg("path", { class: "grid", d: `M${x(at)} ${TOP - 8}V${HEIGHT - BOTTOM}` }));
    if (x(at) + HALF_A_CLOCK > width) continue; // the edge would cut it
    group.append(svg("text", { x: x(at), y: HEIGHT - 6, "text-anchor": "middle" }, clock(at)));
  }
  return group;
}

// A bar for each worker: broken where it was dead
function lives({ now, x, width }, all) {
  const group = svg("g");
  const names = [...new Set(all.map((life) => life.worker))].sort();
  const height = names.length > 1 ? Math.max(2, 8 / names.length) : 5;
  for (const life of all) {
    const begin = Math.max(-4, x(life.from));
    const end = life.to === null ? width + 40 : x(life.to);
    if (end < 0) continue;
    const y = TOP - 12 + names.indexOf(life.worker) * (height + 1);
    group.append(svg("rect", { class: "life", x: begin, y, width: Math.max(1, end - begin), height, rx: height / 2 }));
  }
  return group;
}

function lastsUntil(death, now) {
  if ((death.n_waiting ?? 0) > 0) return now + 2;
  return death.at + Math.max(0.15, death.longest_pause_s ?? 0);
}

function gap({ now, x }, death) {
  const begin = x(death.at);
  const end = x(lastsUntil(death, now));
  return svg("g", { class: isSoft(death) ? "asked" : "" },
    svg("rect", { class: "gap", x: begin, y: TOP - 2, width: Math.max(2, end - begin), height: HEIGHT - TOP - BOTTOM + 2 }));
}

function thread({ now, x, y, width, thick }, one, { mine, losses }) {
  const group = svg("g", { "stroke-width": thick });
  const own = mine.has(one.id) ? " mine" : "";
  const level = y(one.lane);
  const end = one.to === null ? width + 40 : x(one.to);
  const first = one.first === null ? end : x(one.first);
  if (first - x(one.from) > 1) {
    group.append(svg("path", { class: "waits", d: `M${x(one.from)} ${level}H${first}` }));
  }
  if (one.first !== null) {
    const cuts = [...one.pauses.values()].map(([from, to]) => [x(from), x(to)]);
    const open = one.isPaused ? losses.find((loss) => (loss.n_waiting ?? 0) > 0) : undefined;
    if (open !== undefined) cuts.push([Math.max(first, x(open.at)), end]);
    cuts.sort((a, b) => a[0] - b[0]);
    let at = first;
    for (const [from, to] of [...cuts, [end, null]]) {
      if (from > at) group.append(svg("path", { class: `runs${own}`, d: `M${at} ${level}H${from}` }));
      if (to !== null) group.append(svg("path", { class: "pause", d: `M${from} ${level}H${to}` }));
      at = to ?? at;
    }
  }
  if (one.to !== null) {
    const kind = one.outcome === "succeeded" ? "" : one.outcome === "cancelled" ? " left" : " bad";
    group.append(svg("circle", { class: `end${kind}`, cx: end, cy: level, r: Math.max(1.6, thick * 0.75) }));
  }
  return group;
}

// A flag on each death, unless it would cover the one before
function flags({ x, width }, losses) {
  let before = Infinity;
  return losses.map((death) => {
    const at = x(death.at);
    const text = `${word(death)} ${clock(death.at)}${wentOn(death)}`;
    const wide = text.length * 6.1 + 14;
    const left = Math.min(Math.max(4, at - 8), width - wide - 4);
    const group = svg("g", { class: isSoft(death) ? "asked" : "" },
      svg("path", { class: "cut", d: `M${at} 22V${HEIGHT - BOTTOM}` }));
    if (left + wide < before && at > -20) {
      group.append(svg("g", { class: "flag" },
        svg("rect", { x: left, y: 6, width: wide, height: 17, rx: 5 }),
        svg("text", { x: left + 7, y: 18 }, text)));
      before = left - 4;
    }
    return group;
  });
}

const wentOn = (death) =>
  (death.n_went_on ?? 0) > 0 ? ` · ${death.n_went_on} went on, ${pause(death.longest_pause_s ?? 0)}` : "";

export function word(death) {
  return { killed: "killed", crashed: "crashed", hung: "hung", out_of_memory: "out of memory" }[death.reason] ?? death.reason.replaceAll("_", " ");
}
