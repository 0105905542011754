// What the buttons do: an operator's commands, each with a word about how it went.

import { byId, h } from "./dom.js";
import { plural } from "./format.js";
import { reason, signIn, signOut } from "./session.js";

const NOTE_MS = 6000;

export function note(text, { bad = false } = {}) {
  const shown = h("p", { class: bad ? "bad" : "" }, text);
  byId("notes").append(shown);
  setTimeout(() => shown.remove(), bad ? 2 * NOTE_MS : NOTE_MS);
}

// A dialog with fields; resolves to their values, or to null
export function ask(title, text, fields, { go, grave = false }) {
  return new Promise((done) => {
    const inputs = Object.entries(fields).map(([name, { label, ...props }]) =>
      [name, label, h("input", { name, autocomplete: "off", ...props })]);
    const dialog = h("dialog", { "aria-labelledby": "dialog-title" },
      h("form", { method: "dialog" },
        h("h2", { id: "dialog-title" }, title),
        h("p", { class: "muted" }, text),
        ...inputs.map(([, label, input]) => h("label", {}, label, input)),
        h("div", { class: "buttons" },
          h("button", { type: "button", class: "quiet", onclick: () => dialog.close("") }, "Cancel"),
          h("button", { class: grave ? "grave" : "main", value: "go" }, go))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      done(dialog.returnValue === "go" ? Object.fromEntries(inputs.map(([name, , input]) => [name, input.value])) : null);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export async function askToSignIn(store, wish = "") {
  const text = `${wish ? `To ${wish}, sign in as an administrator. ` : ""}Paste a key, or the token that \`start\` has printed.`.replaceAll("`", "");
  const found = await ask("Sign in", text, { key: { label: "Key or token", type: "password", required: true, autocomplete: "current-password" } }, { go: "Sign in" });
  if (found === null) return false;
  const fault = await signIn(found.key.trim());
  if (fault !== null) note(fault, { bad: true });
  return fault === null;
}

export async function toggleSession(store) {
  if (store.hello?.is_anonymous ?? true) await askToSignIn(store);
  else await signOut();
}

async function command(store, wish, path, body, told) {
  if (!store.isAdmin && !(await askToSignIn(store, wish))) return;
  note(told.begin);
  try {
    const response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (response.ok) note(told.end);
    else note((await reason(response)) ?? `The service refused: ${response.status}`, { bad: true });
  } catch {
    note("The connection broke before the answer came.", { bad: true });
  }
}

export function restart(store, worker) {
  return command(store, `restart ${worker}`, "/admin/restart", { worker }, {
    begin: `A new process for ${worker} is being started; the old one serves meanwhile.`,
    end: `${worker} has been replaced.`,
  });
}

export async function kill(store, worker) {
  if (!store.isAdmin && !(await askToSignIn(store, `kill ${worker}`))) return;
  const running = store.tick.workers.find((row) => row.name === worker)?.running ?? 0;
  const found = await ask(`Kill ${worker}?`,
    running ? `${plural(running, "stream")} run on it. They go on with the next process after a pause.` : "No stream runs on it.",
    {}, { go: "Kill it", grave: true });
  if (found === null) return;
  await command(store, "", "/admin/restart", { worker, now: true }, {
    begin: `${worker} has been killed.`,
    end: `${worker} is ready again.`,
  });
}

export async function swap(store, name) {
  if (!store.isAdmin && !(await askToSignIn(store, "swap a model"))) return;
  const model = store.tick.models.find((row) => row.name === name);
  const found = await ask(`Swap ${name}`,
    "Another model file is served under this name. It is tried first, and if it does not pass, the old one stays.",
    {
      path: { label: "Model file on the server", value: model?.path ?? "", required: true },
      n_ctx: { label: "Tokens a request (unchanged if empty)", type: "number", min: 16 },
    },
    { go: "Swap" });
  if (found === null) return;
  const body = { model_path: found.path, name };
  if (found.n_ctx) body.n_ctx = Number(found.n_ctx);
  await command(store, "", "/admin/swap", body, { begin: `${found.path} is being tried.`, end: `${name} is the new model now.` });
}

export function load(store, name) {
  return command(store, `load ${name}`, `/v1/models/${encodeURIComponent(name)}/load`, {}, { begin: `${name} is being loaded.`, end: `${name} is loaded.` });
}

export function unload(store, name) {
  return command(store, `unload ${name}`, `/v1/models/${encodeURIComponent(name)}/unload`, {}, { begin: `${name} is being unloaded.`, end: `${name} is unloaded.` });
}
