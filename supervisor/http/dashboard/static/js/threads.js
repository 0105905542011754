// The streams of the last minutes as threads, each in a lane, and the lives of the workers that
// they ran on. No drawing here.

const KEEP_S = 150;
export const MOST_LANES = 40;

export class Threads {
  constructor() {
    this.all = new Map(); // request id → thread
    this.lives = []; // {worker, epoch, from, to}
    this.losses = [];
    this.mine = new Set(); // ids of this page's own requests
    this.unseen = 0;
  }

  // `startedAt` is the front's: no worker is older
  tick(message, startedAt) {
    const now = message.point.at;
    for (const row of message.ended ?? []) this.ended(row);
    for (const row of message.requests ?? []) this.#row(row);
    for (const worker of message.workers ?? []) this.#worker(worker, now, startedAt);
    this.unseen = (message.n_requests ?? 0) - (message.requests ?? []).length;
    for (const [id, thread] of this.all) {
      if ((thread.to ?? now) < now - KEEP_S) this.all.delete(id);
    }
    this.lives = this.lives.filter((life) => (life.to ?? now) > now - KEEP_S);
  }

  ended(row) {
    this.#row(row);
    const thread = this.all.get(row.id);
    thread.to = row.ended_at;
    thread.outcome = row.outcome;
  }

  #row(row) {
    let thread = this.all.get(row.id);
    if (thread === undefined) {
      thread = { id: row.id, from: row.submitted_at, to: null, pauses: new Map() };
      this.all.set(row.id, thread);
      thread.lane = this.#lane(thread);
    }
    thread.first = row.first_token_at ?? null;
    thread.isPaused = row.is_paused ?? false;
    thread.row = row;
  }

  // The lowest lane in which no thread ends after this one begins
  #lane(thread) {
    const taken = new Set();
    for (const other of this.all.values()) {
      if (other !== thread && (other.to === null || other.to > thread.from - 0.8)) taken.add(other.lane);
    }
    let lane = 0;
    while (taken.has(lane)) lane += 1;
    return lane;
  }

  #worker(worker, now, startedAt) {
    const life = this.lives.findLast((one) => one.worker === worker.name);
    const isUp = worker.state === "ready" || worker.state === "draining";
    if (life?.epoch === worker.epoch && life.to === null) {
      if (!isUp) life.to = now;
      return;
    }
    if (!isUp || life?.epoch === worker.epoch) return;
    if (life !== undefined && life.to === null) life.to = now;
    // the first ones are older than this page
    const from = this.lives.some((one) => one.worker === worker.name)
      ? now
      : Math.max(now - KEEP_S, startedAt);
    this.lives.push({ worker: worker.name, epoch: worker.epoch, from, to: null });
    this.#fit();
  }

  deaths(rows) {
    this.losses = rows;
    for (const death of rows) {
      for (const pause of death.pauses ?? []) {
        const thread = this.all.get(pause.request);
        thread?.pauses.set(`${death.worker} ${death.epoch}`, [pause.began_at, pause.ended_at]);
      }
    }
    this.#fit();
  }

  // Ticks tell to a second when a worker came and went; its death and its streams tell exactly.
  // The oldest death comes first: a worker that this page has not seen before begins with the last one.
  #fit() {
    for (const death of [...this.losses].sort((a, b) => a.at - b.at)) {
      const isOf = (one) => one.worker === death.worker && death.at > one.from - 2; // a later front counts anew
      const life = this.lives.find((one) => isOf(one) && one.epoch === death.epoch);
      if (life !== undefined) life.to = Math.min(life.to ?? death.at, death.at);
      const next = this.lives.find((one) => one.worker === death.worker && one.epoch > death.epoch);
      const went = Math.min(...(death.pauses ?? []).map((pause) => pause.ended_at));
      if (next === undefined) continue;
      if (Number.isFinite(went) && next.from > went) next.from = went;
      if (next.from < death.at) next.from = Number.isFinite(went) ? went : death.at;
    }
  }
}
