// The requests that run or wait now. What they ask is not shown.

import { byId, h, keyed, mark, say } from "../dom.js";
import { count, seconds, span } from "../format.js";

const MOST = 24;
const STAGE = { preparing: "waits", ready: "waits", running: "runs", pausing: "pauses", cancelling: "ends" };

export class Requests {
  constructor() {
    this.rows = h("tbody");
    this.empty = h("p", { class: "empty" }, "No request is open.");
    this.table = h("table", {},
      h("thead", {}, h("tr", {},
        ...["Request", "State"].map((name) => h("th", { scope: "col" }, name)),
        h("th", { scope: "col", class: "wide" }, "Model"),
        h("th", { scope: "col", class: "wide" }, "Worker"),
        h("th", { scope: "col", class: "number wide" }, "Prompt"),
        h("th", { scope: "col", class: "number" }, "Tokens"),
        h("th", { scope: "col", class: "number wide" }, "First after"),
        h("th", { scope: "col", class: "number" }, "Age"),
        h("th", { scope: "col", class: "number" }, "Replays"))),
      this.rows);
    byId("request-list").append(this.empty, this.table);
  }

  update(store) {
    const all = store.tick.requests ?? [];
    this.empty.hidden = all.length > 0;
    this.table.hidden = all.length === 0;
    const hidden = (store.tick.n_requests ?? all.length) - Math.min(MOST, all.length);
    say(byId("requests-count"), all.length ? `${count(store.tick.n_requests ?? 0)}${hidden > 0 ? `, the oldest ${MOST} here` : ""}` : "");
    keyed(this.rows, all.slice(0, MOST), (row) => row.id, make, (element, row) => fill(element, row, store));
  }
}

function make(row) {
  return h("tr", {},
    h("td", { class: "mono nowrap", title: row.id }, row.id.slice(-8)),
    h("td", { class: "nowrap" }, h("span", { class: "badge" })),
    h("td", { class: "wide cut", title: row.model }, row.model),
    h("td", { class: "wide nowrap" }),
    ...["number wide nowrap", "number", "number wide", "number nowrap", "number"].map((kind) => h("td", { class: kind })));
}

function fill(element, row, store) {
  const [id, state, , worker, prompt, tokens, first, age, replays] = element.children;
  const paused = row.is_paused ?? false;
  const own = store.threads.mine.has(row.id);
  say(id, own ? `${row.id.slice(-8)} (yours)` : row.id.slice(-8));
  say(state.firstChild, paused ? "resumes" : STAGE[row.stage] ?? row.stage);
  mark(state.firstChild, "class", `badge ${paused ? "busy" : row.stage === "running" ? "good" : ""}`);
  say(worker, row.worker ?? "–");
  say(prompt, `${count(row.n_prompt ?? 0)}${row.n_cached ? ` (${count(row.n_cached)} cached)` : ""}`);
  say(tokens, count(row.n_generated ?? 0));
  say(first, row.first_token_at ? seconds(row.first_token_at - row.submitted_at) : "–");
  say(age, span(store.tick.point.at - row.submitted_at));
  say(replays, row.n_replays ? count(row.n_replays) : "–");
}
