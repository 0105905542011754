// The one stream of events that keeps the page up to date. It rests while the page is hidden.

import { events } from "./sse.js";
import { onSession } from "./session.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;
const HIDDEN_MS = 30_000;
const SILENCE_MS = 6000;

// `on(event, message)` gets each event, `onLink(state)` one of: live, lost, refused
export function follow(on, onLink) {
  let stop = new AbortController();
  let resting = null;
  let asleep = false;
  let wake = () => {};

  const again = () => {
    stop.abort();
    wake();
  };
  onSession(again);
  document.addEventListener("visibilitychange", () => {
    clearTimeout(resting);
    if (document.hidden) {
      resting = setTimeout(() => {
        asleep = true;
        stop.abort();
      }, HIDDEN_MS);
    } else if (asleep) {
      asleep = false;
      again();
    }
  });

  async function once() {
    stop = new AbortController();
    const response = await fetch("/dashboard/events", { signal: stop.signal });
    if (response.status === 401 || response.status === 403) {
      location.reload(); // the service answers with its form to sign in
      return "refused";
    }
    if (!response.ok) return "lost";
    const ended = stop;
    let silence = setTimeout(() => ended.abort(), SILENCE_MS);
    try {
      for await (const { event, data } of events(response.body)) {
        clearTimeout(silence);
        silence = setTimeout(() => ended.abort(), SILENCE_MS);
        if (event !== "comment") on(event, JSON.parse(data));
        onLink("live");
      }
    } finally {
      clearTimeout(silence);
    }
    return "again";
  }

  (async () => {
    let wait = FIRST_WAIT_MS;
    while (true) {
      let result;
      try {
        result = await once();
      } catch {
        result = stop.signal.aborted ? "again" : "lost";
      }
      if (result === "again" && !asleep) {
        wait = FIRST_WAIT_MS;
        await pause(100);
        continue;
      }
      onLink(asleep ? "asleep" : result);
      await pause(asleep ? 1e9 : wait);
      wait = Math.min(LONGEST_WAIT_MS, wait * 2);
    }
  })();

  function pause(ms) {
    return new Promise((done) => {
      const timer = setTimeout(done, Math.min(ms, 2 ** 31 - 1));
      wake = () => {
        clearTimeout(timer);
        done();
      };
    });
  }
}
