// Every end of a worker: when, why, and what became of its streams.

import { byId, h, keyed, say } from "../dom.js";
import { count, moment, pause, plural, span } from "../format.js";
import { cause } from "../states.js";

const MOST = 30;

export class Deaths {
  constructor() {
    this.rows = h("tbody");
    this.empty = h("p", { class: "empty" }, "No worker has ended yet.");
    this.table = h("table", {},
      h("thead", {}, h("tr", {},
        h("th", { scope: "col" }, "When"), h("th", { scope: "col", class: "wide" }, "Worker"), h("th", { scope: "col" }, "Why"),
        h("th", { scope: "col" }, "Its streams"), h("th", { scope: "col", class: "wide" }, "Lived"),
        h("th", { scope: "col", class: "wide" }, "Record"))),
      this.rows);
    byId("death-list").append(this.empty, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Deaths and replacements" }, this.table));
  }

  update(store) {
    const all = store.deaths;
    this.empty.hidden = all.length > 0;
    this.table.hidden = all.length === 0;
    const deaths = all.filter((death) => !death.was_asked).length;
    say(byId("deaths-count"), all.length ? `${plural(deaths, "death")}, ${count(all.length - deaths)} asked for` : "");
    keyed(this.rows, all.slice(0, MOST), (death) => `${death.worker} ${death.epoch} ${Math.round(death.at / 60)}`, make,
      (row, death) => fill(row, death, store.now));
  }
}

function make(death) {
  return h("tr", {},
    h("td", { class: "nowrap" }),
    h("td", { class: "nowrap wide" }, death.worker, " ", h("small", { class: "muted" }, `epoch ${death.epoch}`)),
    h("td", {}, h("span", { class: `badge ${death.was_asked ? "" : "bad"}` }, cause(death)), " ", h("small", { class: "muted" })),
    h("td", {}, h("span"), " ", h("small", { class: "muted" })),
    h("td", { class: "wide nowrap" }), h("td", { class: "wide mono" }));
}

function fill(row, death, now) {
  const [when, , why, streams, lived, record] = row.children;
  say(when, moment(death.at, now));
  say(why.lastChild, death.detail ?? "");
  const [what, how] = outcome(death);
  say(streams.firstChild, what);
  say(streams.lastChild, how);
  say(lived, death.uptime_s ? span(death.uptime_s) : "–");
  say(record, death.record || "–");
  if (death.record) record.title = `gpufc-supervisor crashes show ${death.record}`;
}

function outcome(death) {
  if (death.n_streams === undefined) return ["–", ""];
  if (death.n_streams === 0) return ["none ran", ""];
  const went = death.n_went_on ?? 0;
  const waiting = death.n_waiting ?? 0;
  const rest = [
    went ? `after ${pause(death.longest_pause_s ?? 0)} at most` : null,
    waiting ? `${count(waiting)} ${waiting === 1 ? "waits" : "wait"}` : null,
    death.n_ended ? `${count(death.n_ended)} ended` : null,
  ];
  return [`${count(went)} of ${count(death.n_streams)} went on`, rest.filter(Boolean).join(", ")];
}
