// Access keys, for administrators, and the limits that clients may run into.

import { byId, h, keyed, say } from "../dom.js";
import { count, moment } from "../format.js";

export class Access {
  constructor() {
    this.text = h("p", { class: "muted" });
    this.keys = h("tbody");
    this.table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Keys" }, h("table", {},
      h("thead", {}, h("tr", {}, ...["Key", "May", "Models", "Limits", "Until"].map((name) => h("th", { scope: "col" }, name)))),
      this.keys));
    this.main = h("dl", { class: "facts" },
      h("div", {}, h("dt", {}, "Sequences at once"), h("dd")),
      h("div", {}, h("dt", {}, "Sequences in the queue"), h("dd")));
    this.limits = h("tbody");
    byId("access-view").append(h("div", { class: "stack" }, this.text, this.table, this.main,
      h("details", {}, h("summary", {}, "All limits"),
        h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Key of the configuration"), h("th", { scope: "col" }, "Value"))), this.limits))));
  }

  update(store) {
    const { hello, keys, limits } = store;
    say(this.text, sentence(hello, store.isAdmin));
    this.table.hidden = !keys?.length;
    keyed(this.keys, keys ?? [], (key) => key.name,
      (key) => h("tr", {}, h("td", {}, key.name), ...[0, 1, 2, 3].map(() => h("td"))),
      (row, key) => {
        const [, may, models, most, until] = row.children;
        say(may, key.scopes.join(", "));
        say(models, (key.models ?? []).join(", ") || "all");
        say(most, bounds(key));
        say(until, key.expires_at ? moment(key.expires_at, store.now) : "no end");
      });
    const [running, queue] = this.main.querySelectorAll("dd");
    say(running, count(limits.running));
    say(queue, count(limits.queue));
    keyed(this.limits, limits.rows ?? [], ([name]) => name,
      ([name]) => h("tr", {}, h("td", { class: "mono" }, name), h("td")),
      (row, [, value]) => say(row.lastChild, Number.isInteger(Number(value)) ? count(Number(value)) : value));
  }
}

function bounds(key) {
  return [
    key.concurrent ? `${count(key.concurrent)} at once` : null,
    key.requests_per_minute ? `${count(key.requests_per_minute)} requests a minute` : null,
    key.tokens_per_minute ? `${count(key.tokens_per_minute)} tokens a minute` : null,
  ].filter(Boolean).join(", ") || "none";
}

function sentence(hello, isAdmin) {
  if (!hello.needs_key) return "No keys are configured: clients on this machine may generate and read, and the token that start prints makes an administrator.";
  return isAdmin ? "Every request needs one of these keys." : "Every request needs a key. Administrators see the list.";
}
