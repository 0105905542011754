// Who the page acts for. The service's sign-in sets a cookie; a front without one takes the token
// with each request instead, and the page then keeps it in memory only.

let token = null;
const changed = new EventTarget();

export function onSession(listener) {
  changed.addEventListener("change", listener);
}

export function headers(more = {}) {
  return token === null ? more : { ...more, Authorization: `Bearer ${token}` };
}

// Resolves to null, or to the reason why it did not work
export async function signIn(text) {
  const response = await fetch("/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ key: text }),
  });
  if (response.status === 404 || response.status === 405) {
    token = text;
    const allowed = await fetch("/stats", { headers: headers() });
    if (!allowed.ok) token = null;
    if (!allowed.ok) return "That key is not known.";
  } else if (!response.ok) {
    return (await reason(response)) ?? "That key is not known.";
  }
  changed.dispatchEvent(new Event("change"));
  return null;
}

export async function signOut() {
  token = null;
  await fetch("/session", { method: "DELETE" });
  changed.dispatchEvent(new Event("change"));
}

// The token in the address that `start` prints. It must not stay in the history.
export async function signInByAddress() {
  const given = new URLSearchParams(location.search).get("token");
  if (given === null) return;
  history.replaceState(null, "", location.pathname + location.hash);
  await signIn(given);
}

export async function reason(response) {
  try {
    const body = await response.json();
    return body.error?.message ?? null;
  } catch {
    return null;
  }
}
