// The session with a GPUFabric control server, if the front has joined a network.

import { byId, h, mark, say } from "../dom.js";
import { count, moment, short } from "../format.js";

const PHASE = {
  online: ["good", "online"],
  connecting: ["busy", "connecting"],
  login: ["busy", "logging in"],
  closing: ["busy", "leaving"],
  waiting: ["bad", "waits to connect again"],
  off: ["", "not joined"],
};
const FACTS = ["Logged in", "Last heartbeat", "Tasks now", "Connections", "Tasks done", "Not done", "Tokens for it", "Client id"];

export class Network {
  constructor() {
    this.section = byId("network");
    this.anchor = byId("to-network");
    this.state = h("span", { class: "state" }, h("i", { class: "dot", "aria-hidden": "true" }), h("span", {}));
    this.about = h("p", { class: "muted" });
    this.facts = FACTS.map((name) => h("div", {}, h("dt", {}, name), h("dd")));
    byId("network-view").append(h("div", { class: "stack" },
      h("div", {}, h("div", { class: "worker-head" }, h("h3", {}), this.state), this.about),
      h("dl", { class: "facts" }, ...this.facts)));
    this.title = this.section.querySelector("h3");
  }

  update({ tick: { network }, now }) {
    this.section.hidden = this.anchor.hidden = network === undefined;
    if (network === undefined) return;
    const [tone, word] = PHASE[network.phase] ?? ["", network.phase];
    mark(this.state.firstChild, "class", `dot ${tone}`);
    say(this.state.lastChild, word);
    say(this.title, network.server);
    say(this.about, network.detail || (network.models?.length ? `offers ${network.models.join(", ")}` : "offers no model yet"));
    const tasks = network.tasks ?? {};
    const waiting = network.tasks_waiting ?? 0;
    [
      network.logged_in_at ? moment(network.logged_in_at, now) : "not yet",
      network.last_heartbeat_at ? moment(network.last_heartbeat_at, now) : "not yet",
      `${count(network.tasks_running ?? 0)}${waiting ? ` and ${count(waiting)} waiting` : ""}`,
      count(network.connections ?? 0),
      count(tasks.succeeded ?? 0),
      ["failed", "cancelled", "refused", "lost"].filter((end) => tasks[end]).map((end) => `${count(tasks[end])} ${end}`).join(", ") || "none",
      short(tasks.generated_tokens ?? 0),
      network.client_id,
    ].forEach((text, i) => say(this.facts[i].lastChild, text));
  }
}
