// The last lines of the front's and the workers' logs. For administrators.

import { byId, h, say } from "../dom.js";
import { askToSignIn } from "../actions.js";

const MOST = 300;
const LINE = /^\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d)\S* (DEBUG|INFO|WARNING|ERROR|CRITICAL) +(\S+) (.*)$/s;

export class Logs {
  constructor(store) {
    this.process = h("select", { "aria-label": "Process", onchange: () => this.draw() }, h("option", { value: "" }, "all processes"));
    this.loud = h("input", { type: "checkbox", onchange: () => this.draw() });
    this.words = h("input", { type: "search", placeholder: "Filter", "aria-label": "Filter", oninput: () => this.draw() });
    this.lines = h("div", { class: "log-lines", role: "log", "aria-live": "off", "aria-label": "Log lines", tabindex: "0" });
    this.bar = h("div", { class: "log-bar" }, this.process, h("label", {}, this.loud, "warnings only"), this.words);
    this.refused = h("p", { class: "empty" }, "Logs are for administrators. ",
      h("button", { type: "button", onclick: () => askToSignIn(store, "read the logs") }, "Sign in"));
    byId("log-view").append(this.bar, this.lines, this.refused);
    this.drawn = null;
  }

  update(store) {
    this.store = store;
    this.bar.hidden = this.lines.hidden = !store.isAdmin;
    this.refused.hidden = store.isAdmin;
    if (store.lines !== this.drawn) this.draw();
  }

  draw() {
    if (this.store === undefined) return;
    const all = (this.drawn = this.store.lines);
    this.#processes(all);
    const words = this.words.value.toLowerCase();
    const found = all.filter((line) =>
      (!this.process.value || line.process === this.process.value) &&
      (!this.loud.checked || / (WARNING|ERROR|CRITICAL) /.test(line.text.slice(0, 60))) &&
      (!words || line.text.toLowerCase().includes(words)));
    const box = this.lines;
    const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    const scrolled = box.scrollTop;
    box.replaceChildren(...found.slice(-MOST).map(shown));
    if (!found.length) box.append(h("p", { class: "muted" }, "No line."));
    box.scrollTop = follows ? box.scrollHeight : scrolled;
  }

  #processes(lines) {
    const known = new Set([...this.process.options].map((option) => option.value));
    for (const name of new Set(lines.map((line) => line.process))) {
      if (!known.has(name)) this.process.append(h("option", { value: name }, name));
    }
  }
}

// A line of ours without its date and its level, unless that is remarkable
function shown(line) {
  const [, time, level = "", process = line.process, text = line.text] = LINE.exec(line.text) ?? [];
  const tone = level === "WARNING" ? "warning" : level === "ERROR" || level === "CRITICAL" ? "error" : "";
  return h("p", { class: tone, title: line.text },
    time ? h("time", {}, time) : "", " ", h("span", { class: "process" }, process), " ", tone ? `${level} ` : "", text);
}
