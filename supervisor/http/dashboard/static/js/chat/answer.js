// One answer as it comes: its text, its reasoning, its tool calls, and where its engine changed.

import { h, say } from "../dom.js";
import { count, pause, plural, rate, seconds } from "../format.js";
import { markdown } from "./markdown.js";

const PAUSE_S = 0.25; // a pause that is worth a look

export class Answer {
  constructor() {
    this.text = "";
    this.reasoning = "";
    this.calls = [];
    this.finish = null;
    this.usage = null;
    this.seams = []; // {at: characters, seconds}
    this.began = performance.now();
    this.firstAt = null;
    this.lastAt = null;
    this.longest = null; // the longest pause since the last seam: {at, seconds}
    this.replays = 0;
    this.thoughts = h("details", { hidden: true }, h("summary", {}, "Reasoning"), h("div"));
    this.body = h("div", { class: "text" });
    this.caret = h("span", { class: "caret", "aria-hidden": "true" });
    this.callList = h("div");
    this.foot = h("p", { class: "foot" });
    this.element = h("article", { class: "message assistant", "aria-busy": "true" }, h("h3", { class: "unseen" }, "Answer"),
      this.thoughts, this.body, this.callList, this.foot);
    this.body.append(this.caret);
    this.planned = false;
  }

  // One chunk of the stream
  take(chunk) {
    if (chunk.usage) this.usage = chunk.usage;
    const choice = chunk.choices?.[0];
    if (choice === undefined) return;
    const { delta = {} } = choice;
    this.finish = choice.finish_reason ?? this.finish;
    if (delta.reasoning_content) this.reasoning += delta.reasoning_content;
    for (const call of delta.tool_calls ?? []) this.#call(call);
    if (delta.content || delta.reasoning_content || delta.tool_calls) this.#time();
    if (delta.content) this.text += delta.content;
    this.drawSoon();
  }

  #time() {
    const now = performance.now();
    const gap = this.lastAt === null ? 0 : (now - this.lastAt) / 1000;
    if (gap > PAUSE_S && gap > (this.longest?.seconds ?? 0)) this.longest = { at: this.text.length, seconds: gap };
    this.firstAt ??= now;
    this.lastAt = now;
  }

  #call(call) {
    const known = (this.calls[call.index ?? 0] ??= { id: "", name: "", arguments: "" });
    known.id = call.id ?? known.id;
    known.name += call.function?.name ?? "";
    known.arguments += call.function?.arguments ?? "";
  }

  // The front says that this request has gone to another worker so many times
  replayed(times) {
    if (times <= this.replays) return;
    if (this.longest === null && this.finish === null) return; // the pause is still going on
    this.replays = times;
    this.seams.push(this.longest ?? { at: this.text.length, seconds: null });
    this.longest = null;
    this.drawSoon();
  }

  waits(isPaused) {
    this.caret.classList.toggle("waits", isPaused);
  }

  drawSoon() {
    if (this.planned) return;
    this.planned = true;
    requestAnimationFrame(() => {
      this.planned = false;
      this.draw();
    });
  }

  draw() {
    this.thoughts.hidden = this.reasoning === "";
    say(this.thoughts.lastChild, this.reasoning);
    this.body.replaceChildren(...this.#shown());
    if (this.finish === null && !this.ended) (lastText(this.body) ?? this.body).append(this.caret);
    this.callList.replaceChildren(...this.calls.map(callCard));
    say(this.foot, this.#figures());
  }

  // The text with its seams. Markdown is drawn for the text between two of them.
  #shown() {
    if (!this.seams.length) return markdown(this.text);
    const found = [];
    let at = 0;
    for (const seam of this.seams) {
      const part = markdown(this.text.slice(at, seam.at));
      join(found, part);
      const chip = h("span", { class: "seam" }, seam.seconds === null ? "engine replaced" : `engine replaced · ${pause(seam.seconds)}`);
      (found.at(-1)?.tagName === "P" ? found.at(-1) : found[found.push(h("p")) - 1]).append(chip);
      at = seam.at;
    }
    join(found, markdown(this.text.slice(at)));
    return found;
  }

  #figures() {
    const n = this.usage?.completion_tokens;
    const parts = [];
    if (n) parts.push(plural(n, "token"));
    if (n && this.lastAt > this.firstAt) parts.push(`${rate((n - 1) / ((this.lastAt - this.firstAt) / 1000))}/s`);
    if (this.firstAt !== null && this.usage) parts.push(`first after ${seconds((this.firstAt - this.began) / 1000)}`);
    if (this.usage?.prompt_tokens_details?.cached_tokens) parts.push(`${count(this.usage.prompt_tokens_details.cached_tokens)} of the prompt cached`);
    if (this.replays) parts.push(`went on across ${plural(this.replays, "death")}`);
    if (this.finish === "length") parts.push("cut at the limit");
    return parts.join(" · ");
  }

  end(fault = null) {
    this.ended = true;
    this.draw();
    this.caret.remove();
    this.element.setAttribute("aria-busy", "false");
    if (fault) this.element.append(h("p", { class: "fault", role: "alert" }, fault));
  }

  // The message as the next request carries it
  get message() {
    const calls = this.calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
    return { role: "assistant", content: this.text, ...(calls.length ? { tool_calls: calls } : {}) };
  }
}

// The parts of one paragraph belong together, even where an engine died within it
function join(found, part) {
  const before = found.at(-1);
  if (before?.tagName === "P" && before.lastChild?.className === "seam" && part[0]?.tagName === "P") {
    before.append(...part.shift().childNodes);
  }
  found.push(...part);
}

function lastText(body) {
  const last = body.lastElementChild;
  return last?.tagName === "UL" || last?.tagName === "OL" ? last.lastElementChild : last;
}

function callCard(call) {
  let shown = call.arguments;
  try {
    shown = JSON.stringify(JSON.parse(call.arguments), null, 2);
  } catch {
    // it has not come as a whole yet
  }
  return h("div", { class: "call" }, h("h4", {}, `Calls ${call.name}`), h("pre", {}, shown));
}
