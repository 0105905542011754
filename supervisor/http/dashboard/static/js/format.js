// Figures as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clockText = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayText = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export const count = (n) => whole.format(n);

export function short(n) {
  if (n < 10_000) return whole.format(n);
  for (const [unit, size] of [["T", 1e12], ["B", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (n >= size) return `${(n / size).toPrecision(3)}${unit}`;
  }
  return whole.format(n);
}

export const rate = (n) => (n >= 100 || n === 0 ? whole.format(n) : n.toFixed(1));

export function bytes(n) {
  if (!n) return "0";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(n) / 10));
  const value = n / 1024 ** power;
  return `${value >= 100 || power === 0 ? whole.format(value) : value.toPrecision(3)} ${units[power]}`;
}

// A short duration, as its value and its unit
export function split(seconds) {
  if (seconds === null || seconds === undefined) return ["–", ""];
  if (seconds < 0.9995) return [seconds < 0.01 ? (seconds * 1000).toFixed(1) : whole.format(seconds * 1000), "ms"];
  if (seconds < 100) return [seconds.toFixed(seconds < 10 ? 2 : 1), "s"];
  return [whole.format(seconds), "s"];
}

export const seconds = (s) => split(s).join(" ").trim();

// A pause, in the words of the promise
export const pause = (s) => `${s < 10 ? s.toFixed(1) : whole.format(s)} s`;

export function span(s) {
  if (s < 60) return `${Math.max(0, Math.floor(s))} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

export const clock = (at) => clockText.format(new Date(at * 1000));

export function moment(at, now) {
  const time = clock(at);
  return now - at < 43_200 ? time : `${dayText.format(new Date(at * 1000))} ${time}`;
}

export const percent = (ratio) => `${whole.format(ratio * 100)} %`;

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
