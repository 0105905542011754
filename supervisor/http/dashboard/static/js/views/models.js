// Models with their workers, and the buttons of an operator.

import { byId, h, keyed, mark, parts, say } from "../dom.js";
import { bytes, count, percent, rate, seconds, short, span } from "../format.js";
import { TONE, WORD, cause } from "../states.js";
import { kill, load, restart, swap, unload } from "../actions.js";

export class Models {
  update(store) {
    const { tick } = store;
    keyed(byId("model-list"), tick.models ?? [], (model) => model.name,
      (model) => makeModel(store, model.name),
      (card, model) => {
        fillModel(parts(card), model);
        const workers = (tick.workers ?? []).filter((worker) => worker.model === model.name);
        keyed(parts(card).workers, workers, (worker) => `${worker.name} ${workers.indexOf(worker)}`,
          (worker) => makeWorker(store, worker.name),
          (row, worker) => fillWorker(parts(row), worker));
      });
  }
}

function makeModel(store, name) {
  return h("article", { class: "card model" },
    h("div", { class: "model-head" },
      h("div", {},
        h("h3", { "data-part": "title" }, h("i", { class: "dot", "aria-hidden": "true" }), h("span", {}, name), h("small", { class: "badge" })),
        h("p", { class: "muted", "data-part": "about" }),
        h("p", { class: "muted mono", "data-part": "path" })),
      h("div", { class: "buttons" },
        h("button", { type: "button", "data-part": "load", onclick: () => load(store, name) }, "Load"),
        h("button", { type: "button", "data-part": "unload", onclick: () => unload(store, name) }, "Unload"),
        h("button", { type: "button", onclick: () => swap(store, name) }, "Swap model…"))),
    h("div", { class: "stack", "data-part": "workers" }));
}

function fillModel(named, model) {
  const [dot, , badge] = named.title.children;
  mark(dot, "class", `dot ${TONE[model.state]}`);
  mark(badge, "class", `badge ${TONE[model.state]}`);
  say(badge, WORD[model.state] ?? model.state);
  say(named.about, [
    model.architecture,
    model.n_params ? `${short(model.n_params)} parameters` : null,
    model.size_bytes ? bytes(model.size_bytes) : null,
    model.memory_bytes ? `${bytes(model.memory_bytes)} of memory` : null,
    model.n_ctx ? `${count(model.n_ctx)} tokens a request` : null,
    (model.adapters ?? []).length ? `adapters ${model.adapters.join(", ")}` : null,
    model.loading && model.state === "loading" ? `${percent(model.loading)} loaded` : null,
    model.is_pinned ? "stays loaded" : model.expires_in_s !== undefined ? `unloads in ${span(model.expires_in_s)}` : null,
    model.detail,
  ].filter(Boolean).join(" · "));
  say(named.path, model.path ?? "");
  named.load.hidden = !["unloaded", "failed"].includes(model.state);
  named.unload.hidden = !["ready", "busy"].includes(model.state);
}

function fact(name, part) {
  return h("div", {}, h("dt", {}, name), h("dd", { "data-part": part }));
}

function makeWorker(store, name) {
  return h("section", { class: "worker", "aria-label": `Worker ${name}` },
    h("div", { class: "worker-head" },
      h("h4", {}, name),
      h("span", { class: "state", "data-part": "state" }, h("i", { class: "dot", "aria-hidden": "true" }), h("span", {})),
      h("span", { class: "badge", "data-part": "epoch", title: "Each process that takes this place has a number" }),
      h("div", { class: "buttons" },
        h("button", { type: "button", "aria-label": `Restart ${name}`, onclick: () => restart(store, name) }, "Restart"),
        h("button", { type: "button", class: "grave", "aria-label": `Kill ${name}`, onclick: () => kill(store, name) }, "Kill"))),
    h("div", { class: "kv" },
      h("div", {}, h("span", { class: "muted" }, "KV cache"), h("span", { "data-part": "cells" })),
      h("div", { class: "meter", "aria-hidden": "true" }, h("i", { "data-part": "meter" }))),
    h("dl", { class: "facts" },
      fact("Tokens a second", "rate"), fact("Sequences", "running"), fact("Memory", "rss"),
      fact("Loaded in", "loaded"), fact("Layers on GPU", "layers"), fact("Process", "pid"),
      fact("Restarts", "restarts"), fact("Last end", "last"),
      h("div", { class: "whole" }, h("dt", {}, "Device"), h("dd", { "data-part": "device" }))));
}

function fillWorker(named, worker) {
  const [dot, text] = named.state.children;
  const loading = worker.state === "loading" && worker.loading ? ` ${percent(worker.loading)}` : "";
  mark(dot, "class", `dot ${TONE[worker.state]}`);
  say(text, `${WORD[worker.state] ?? worker.state}${loading}`);
  mark(named.state, "title", worker.detail ?? "");
  say(named.epoch, `epoch ${worker.epoch}`);
  const used = worker.kv_used ?? 0;
  const cells = worker.kv_cells ?? 0;
  say(named.cells, cells ? `${count(used)} of ${count(cells)} cells` : "none");
  named.meter.style.transform = `scaleX(${cells ? Math.min(1, used / cells) : 0})`;
  say(named.rate, rate(worker.tokens_per_second ?? 0));
  say(named.running, `${count(worker.running ?? 0)}${worker.waiting ? ` and ${count(worker.waiting)} waiting` : ""}`);
  say(named.rss, bytes(worker.rss_bytes ?? 0));
  say(named.loaded, seconds(worker.loaded_in_s));
  say(named.layers, `${worker.n_gpu_layers ?? 0} of ${worker.n_layers ?? 0}`);
  say(named.pid, `${worker.pid ?? "–"}${worker.machine ? ` on ${worker.machine}` : ""}`);
  say(named.restarts, count(worker.restarts ?? 0));
  say(named.last, worker.last_exit ? cause(worker.last_exit) : "none");
  say(named.device, (worker.devices ?? []).join(", ") || "–");
}
