// Signing in and out. The cookie of a session is the browser's: no script can read it.

const changed = new EventTarget();

export function onSession(listener) {
  changed.addEventListener("change", listener);
}

// Resolves to null, or to the reason why it did not work
export async function signIn(text) {
  const response = await fetch("/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ key: text }),
  });
  if (!response.ok) return (await reason(response)) ?? "That key is not known.";
  changed.dispatchEvent(new Event("change"));
  return null;
}

export async function signOut() {
  await fetch("/session", { method: "DELETE" });
  changed.dispatchEvent(new Event("change"));
}

export async function reason(response) {
  try {
    const body = await response.json();
    return body.error?.message ?? null;
  } catch {
    return null;
  }
}
