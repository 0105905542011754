// A chat to try the service with, in the same dialect that other clients use.

import { byId, h, keyed, mark, say } from "../dom.js";
import { reason } from "../session.js";
import { events } from "../sse.js";
import { Answer } from "./answer.js";
import { declared, run, tools } from "./tools.js";

const MOST_ROUNDS = 4;
const LARGEST_PICTURE = 4 * 1024 * 1024;
const IDEAS = [
  "Write a long story about a lighthouse keeper.",
  "Explain how a KV cache works, step by step.",
  "List twenty animals, one a line.",
];

export class Chat {
  constructor(store) {
    this.store = store;
    this.messages = [];
    this.pictures = [];
    this.tools = tools(store);
    this.answer = null;
    this.stop = null;
    this.request = null;
    this.#build();
    this.#welcome();
  }

  #build() {
    this.model = h("select", { "aria-label": "Model" });
    this.list = h("div", { class: "messages", role: "log", "aria-label": "Conversation", tabindex: "0" });
    this.text = h("textarea", {
      rows: "1", placeholder: "Ask something", "aria-label": "Your message",
      onkeydown: (event) => {
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
          event.preventDefault();
          this.#send();
        }
      },
      onpaste: (event) => this.#attach(event.clipboardData.files),
    });
    this.file = h("input", { type: "file", accept: "image/*", multiple: true, hidden: true, "aria-label": "Pictures", onchange: () => this.#attach(this.file.files) });
    this.shown = h("div", { class: "pictures", hidden: true });
    this.withTools = h("input", { type: "checkbox" });
    this.most = h("input", { type: "number", min: 1, max: 100000, value: 600, "aria-label": "Most tokens of an answer" });
    this.button = h("button", { type: "submit", class: "main send" }, "Send");
    byId("chat").append(
      h("div", { class: "chat-head" },
        h("h2", { id: "chat-title" }, "Chat"), this.model,
        h("button", { type: "button", class: "quiet", onclick: () => this.#clear() }, "New")),
      this.list,
      h("form", { onsubmit: (event) => { event.preventDefault(); this.#send(); } },
        this.shown, this.text, this.file,
        h("div", { class: "chat-bar" },
          h("button", { type: "button", class: "quiet", onclick: () => this.file.click() }, "Add picture"),
          h("label", { title: "The model may ask for the time, this service's state, and dice" }, this.withTools, "tools"),
          h("label", { title: "Most tokens of an answer" }, "up to", this.most),
          this.button)));
  }

  #welcome() {
    this.list.replaceChildren(h("div", { class: "hint" },
      h("h3", {}, "Try it"),
      h("p", {}, "Ask for something long, then kill the worker. The answer goes on."),
      h("div", { class: "ideas" }, ...IDEAS.map((idea) => h("button", { type: "button", onclick: () => this.#say(idea) }, idea)))));
  }

  update(store) {
    const chats = (store.tick.models ?? []).filter((model) => model.generates !== false && model.takes_chats !== false);
    keyed(this.model, chats, (model) => model.name, (model) => h("option", { value: model.name }, model.name), () => {});
    this.model.hidden = chats.length < 2;
    this.button.disabled = this.answer === null && (chats.length === 0 || !(store.hello.scopes.includes("generate") || store.isAdmin));
    if (this.answer === null || this.request === null) return;
    const row = [...(store.tick.requests ?? []), ...(store.tick.ended ?? [])].find((one) => one.id === this.request);
    if (row === undefined) return;
    this.answer.waits(row.is_paused ?? false);
    if (!row.is_paused) this.answer.replayed(row.n_replays ?? 0);
  }

  #say(text) {
    this.text.value = text;
    this.#send();
  }

  #clear() {
    this.stop?.abort();
    this.messages = [];
    this.#welcome();
    this.text.focus();
  }

  async #attach(files) {
    for (const file of files) {
      if (!file.type.startsWith("image/") || file.size > LARGEST_PICTURE) continue;
      this.pictures.push(await dataUrl(file));
    }
    this.file.value = "";
    this.#showPictures();
  }

  #showPictures() {
    this.shown.hidden = this.pictures.length === 0;
    this.shown.replaceChildren(...this.pictures.map((url, i) => h("button", {
      type: "button", "aria-label": `Remove picture ${i + 1}`,
      onclick: () => { this.pictures.splice(i, 1); this.#showPictures(); },
    }, h("img", { src: url, alt: "" }))));
  }

  async #send() {
    if (this.answer !== null) {
      this.stop.abort();
      return;
    }
    const text = this.text.value.trim();
    if (!text && !this.pictures.length) return;
    if (!this.messages.length) this.list.replaceChildren();
    const pictures = this.pictures;
    this.pictures = [];
    this.#showPictures();
    this.text.value = "";
    const content = pictures.length
      ? [...pictures.map((url) => ({ type: "image_url", image_url: { url } })), ...(text ? [{ type: "text", text }] : [])]
      : text;
    this.messages.push({ role: "user", content });
    this.#append(h("article", { class: "message user" }, h("h3", { class: "unseen" }, "You"), ...pictures.map((url) => h("img", { src: url, alt: "Attached picture" })), text));
    for (let round = 0; round < MOST_ROUNDS; round++) {
      const answer = await this.#round();
      if (answer === null || answer.finish !== "tool_calls") return;
      for (const call of answer.calls) {
        const result = run(this.tools, call);
        this.messages.push({ role: "tool", tool_call_id: call.id, content: result });
        answer.element.append(h("div", { class: "call" }, h("h4", {}, `${call.name} gives`), h("pre", {}, result)));
      }
    }
  }

  // One request and its answer; null if it failed or was stopped
  async #round() {
    const answer = (this.answer = new Answer());
    const stop = (this.stop = new AbortController());
    say(this.button, "Stop");
    this.#append(answer.element);
    let fault = null;
    try {
      fault = await this.#stream(answer, stop.signal);
    } catch {
      fault = stop.signal.aborted ? null : "The connection broke.";
    }
    // the last word about its workers comes with the next tick
    answer.end(fault);
    const failed = fault !== null || stop.signal.aborted;
    if (answer.text || !failed) this.messages.push(answer.message);
    else this.messages.pop();
    this.#scroll();
    setTimeout(() => this.#let(answer), 1500);
    this.answer = null;
    say(this.button, "Send");
    return failed ? null : answer;
  }

  // A replay in an answer's last second is told after its end
  #let(answer) {
    const row = this.store.threads.all.get(answer.request)?.row;
    if (row) answer.replayed(row.n_replays ?? 0);
  }

  async #stream(answer, signal) {
    const body = {
      model: this.model.value || undefined,
      messages: this.messages,
      max_tokens: Number(this.most.value) || undefined,
      stream: true,
      stream_options: { include_usage: true },
      ...(this.withTools.checked ? { tools: declared(this.tools) } : {}),
    };
    const response = await fetch("/v1/chat/completions", {
      method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    this.request = answer.request = response.headers.get("X-Request-Id");
    this.store.threads.mine.add(this.request);
    if (!response.ok) return (await reason(response)) ?? `The service refused: ${response.status}`;
    for await (const { event, data } of events(response.body)) {
      if (event === "comment") continue;
      if (data === "[DONE]") break;
      const chunk = JSON.parse(data);
      if (chunk.error) return chunk.error.message;
      answer.take(chunk);
      this.#scroll();
    }
    return null;
  }

  #append(element) {
    this.list.append(element);
    this.list.scrollTop = this.list.scrollHeight;
  }

  #scroll() {
    const { list } = this;
    if (list.scrollHeight - list.scrollTop - list.clientHeight < 120) list.scrollTop = list.scrollHeight;
  }
}

function dataUrl(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
}
