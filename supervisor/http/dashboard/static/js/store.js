// What the page knows: the latest of each message, and what has to be remembered between them.
// `messages.py` describes the messages; a field that is missing has its default.

import { Threads } from "./threads.js";

const KEEP_POINTS = 600;

export class Store {
  constructor() {
    this.hello = null;
    this.tick = null;
    this.deaths = [];
    this.limits = { running: 0, queue: 0, rows: [] };
    this.keys = null;
    this.lines = [];
    this.points = [];
    this.machine = new Map(); // track → [[at, value], …] of the hour before the points
    this.threads = new Threads();
    this.skew = 0; // the server's clock minus this one's, in seconds
  }

  get isAdmin() {
    return this.hello?.scopes.includes("admin") ?? false;
  }

  get now() {
    return Date.now() / 1000 + this.skew;
  }

  // Whether the page is of another build than the service
  take(event, message) {
    switch (event) {
      case "hello":
        this.hello = message;
        this.skew = message.now - Date.now() / 1000;
        this.lines = [];
        if (!message.scopes.includes("admin")) this.keys = null;
        this.#hour(message.machine);
        this.points = (message.history ?? []).slice(-KEEP_POINTS);
        for (const row of message.ended ?? []) this.threads.ended(row);
        break;
      case "tick":
        this.tick = message;
        this.skew = message.point.at - Date.now() / 1000;
        this.#add(message.point);
        this.threads.tick(message, this.hello.started_at);
        break;
      case "deaths":
        this.deaths = message.rows ?? [];
        this.threads.deaths(this.deaths);
        break;
      case "limits":
        this.limits = message;
        break;
      case "keys":
        this.keys = message.rows ?? [];
        break;
      case "log":
        this.lines = [...this.lines, ...(message.lines ?? [])].slice(-500);
        break;
    }
  }

  #add(point) {
    if (this.points.at(-1)?.at >= point.at) return;
    this.points.push(point);
    if (this.points.length > KEEP_POINTS) this.points.shift();
  }

  // A course over the last `span` seconds: [[at, value], …], null where there is no figure
  course(span, valueOf) {
    const from = this.now - span;
    const found = [];
    for (let i = 1; i < this.points.length; i++) {
      const point = this.points[i];
      if (point.at < from) continue;
      const before = this.points[i - 1];
      const isGap = point.at - before.at > 5;
      found.push([point.at, isGap ? null : valueOf(point, before)]);
    }
    return found;
  }

  #hour(recent) {
    this.machine.clear();
    for (const track of recent?.tracks ?? []) {
      this.machine.set(track.name, track.points.map((value, i) => [recent.begins_at + (i + 0.5) * recent.interval_s, value]));
    }
  }

  // A track of the machine's last hour, and what has been seen since
  hour(name, scaled, valueOf) {
    const told = (this.machine.get(name) ?? []).map(([at, value]) => [at, value === null ? null : scaled(value)]);
    const from = told.at(-1)?.[0] ?? 0;
    return [...told, ...this.course(3600, valueOf).filter(([at]) => at > from)];
  }

  // How much of `span` there is to draw: a page that has just been opened has little
  spanned(span) {
    const first = this.points.find((point) => point.at >= this.now - span);
    return Math.min(span, Math.max(30, first === undefined ? 0 : this.now - first.at));
  }

  // Rates of the last seconds, of counters
  rate(name, over = 3) {
    const last = this.points.at(-1);
    const first = this.points.findLast((point) => last.at - point.at >= over - 0.5);
    if (last === undefined || first === undefined || last.at - first.at > over + 5) return 0;
    return ((last[name] ?? 0) - (first[name] ?? 0)) / (last.at - first.at);
  }
}

export const perSecond = (name) => (point, before) =>
  ((point[name] ?? 0) - (before[name] ?? 0)) / Math.max(0.2, point.at - before.at);
