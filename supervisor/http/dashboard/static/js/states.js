// States of workers and of the service, in words and in one of four tones.

export const TONE = {
  ready: "good",
  draining: "busy",
  placing: "busy",
  starting: "busy",
  loading: "busy",
  trying: "busy",
  stopping: "busy",
  backoff: "bad",
  failed: "bad",
  stopped: "",
  // of models
  busy: "good",
  waiting: "busy",
  restarting: "busy",
  unloading: "busy",
  unloaded: "",
};

export const WORD = {
  ready: "ready",
  draining: "handing over",
  placing: "waits for a machine",
  starting: "starting",
  loading: "loading",
  trying: "being tried",
  stopping: "stopping",
  backoff: "waits before its next start",
  failed: "failed",
  stopped: "stopped",
  busy: "busy",
  waiting: "waits for memory",
  restarting: "restarting",
  unloading: "unloading",
  unloaded: "not loaded",
};

export const SERVICE = {
  ok: ["good", "is ready"],
  loading: ["busy", "is loading"],
  restarting: ["busy", "is restarting"],
  hung: ["bad", "hangs"],
  failed: ["bad", "has failed"],
  draining: ["busy", "is stopping"],
};

const SIGNALS = { 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM" };

// `killed (SIGKILL)`, as the commands have it
export function cause(end) {
  const how = end.signal ? SIGNALS[end.signal] ?? `signal ${end.signal}` : end.code ? `code ${end.code}` : "";
  return `${end.reason.replaceAll("_", " ")}${how ? ` (${how})` : ""}`;
}
