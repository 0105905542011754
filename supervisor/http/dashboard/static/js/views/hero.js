// What is running, how fast, is it healthy: the first thing to read.

import { byId, h, mark, say } from "../dom.js";
import { clock, count, pause, plural, rate, span } from "../format.js";
import { SERVICE, cause } from "../states.js";
import { Strip } from "../strip.js";

export class Hero {
  constructor() {
    this.strip = new Strip(byId("strip"));
    this.promised = "";
    addEventListener("resize", () => this.store && this.strip.draw(this.store));
  }

  update(store) {
    this.store = store;
    const { tick, hello } = store;
    const [tone, what] = SERVICE[tick.status] ?? ["busy", tick.status];
    const [dot, headline] = byId("headline").children;
    mark(dot, "class", `dot ${tone}${tone === "good" ? " beats" : ""}`);
    const names = (tick.models ?? []).map((model) => model.name);
    const subject = names.length === 1 ? names[0] : plural(names.length, "model");
    say(headline, `${subject} ${names.length === 1 ? what : what.replace("is ", "are ").replace("has ", "have ")}`);
    const workers = tick.workers ?? [];
    const ready = workers.filter((worker) => worker.state === "ready").length;
    const spares = (tick.spares ?? []).length;
    say(byId("subline"), [
      tick.detail && tick.status !== "ok" ? tick.detail : null,
      `${ready} of ${plural(workers.length, "worker")} ready${spares ? `, ${plural(spares, "spare")}` : ""}`,
      `up ${span(store.now - hello.started_at)}`,
      `gpufc ${hello.version}`,
    ].filter(Boolean).join(" · "));
    const { point } = tick;
    say(byId("now-rate"), rate(store.rate("generated")));
    say(byId("now-running"), count(point.running ?? 0));
    say(byId("now-waiting"), count(point.waiting ?? 0));
    this.strip.draw(store);
    this.#promise(store);
  }

  #promise(store) {
    const totals = store.tick.totals ?? {};
    const deaths = store.deaths.filter((death) => !death.was_asked);
    const last = store.deaths.find((death) => death.n_streams > 0) ?? deaths[0];
    const sentence = last === undefined || last.at < store.hello.started_at
      ? ["No worker has died yet. If one does, its streams go on."]
      : told(last);
    const text = sentence.map((part) => part.textContent ?? part).join("");
    if (text !== this.promised) {
      this.promised = text;
      byId("promise").replaceChildren(...sentence);
    }
    const waiting = deaths.reduce((sum, death) => sum + (death.n_waiting ?? 0), 0); // sent to a worker, and not going on yet
    const counts = [
      [deaths.filter((death) => death.at >= store.hello.started_at).length, "death", ""],
      [Math.max(0, (totals.replayed ?? 0) - waiting), "stream", " went on"],
      [totals.lost ?? 0, "lost", ""],
    ];
    byId("promise-counts").replaceChildren(
      ...counts.map(([n, word, more]) => h("li", { class: word === "lost" ? (n ? "danger" : "none") : "" },
        h("b", {}, count(n)), ` ${word}${n === 1 || word === "lost" ? "" : "s"}${more}`)),
    );
  }
}

function told(death) {
  const streams = death.n_streams ?? 0;
  const went = death.n_went_on ?? 0;
  const waiting = death.n_waiting ?? 0;
  const parts = [h("b", {}, death.worker), ` ${verb(death)} at ${clock(death.at)}. `];
  if (streams === 0) return [...parts, "No stream ran on it."];
  if (waiting > 0) return [...parts, `${plural(waiting, "stream")} ${waiting === 1 ? "waits" : "wait"} for the next worker.`];
  if (went > 0) parts.push(h("b", {}, `${plural(went, "stream")} went on`), ` after ${pause(death.longest_pause_s ?? 0)} at most.`);
  if (went < streams) parts.push(` ${plural(streams - went, "other")} had ended.`);
  return parts;
}

function verb(death) {
  if (death.was_asked) return `was ${death.reason.replaceAll("_", " ")}`;
  if (death.reason === "killed") return `was killed${death.signal === 9 ? "" : ` (${cause(death)})`}`;
  if (death.reason === "hung") return "hung and was ended";
  if (death.reason === "out_of_memory") return "ran out of memory";
  return `died (${cause(death)})`;
}
