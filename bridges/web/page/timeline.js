// When the tokens of one reader were generated and when they arrived, in bounded memory, and how to lay that out.
//
// Generation times are the service's (`ms` of an event, from created_at), arrival times are the page's. ServiceClock
// relates the two. All other times are milliseconds of the page since the question was sent.

import { formatDuration, plural } from './format.js';

export const COLUMNS = 1024;
const FIRST_COLUMN_MS = 4;
const GRID = 2;
const MAX_MARKS = 32;
const MAX_OUTAGES = 64;
// The scale grows in steps, so that nothing moves between them.
const SPANS_S = [5, 10, 20, 30, 60, 120, 180, 300, 600, 1200, 1800, 3600];
const MARKS = { drop: 'connection dropped', switch: 'transport switched', stop: 'stopped', gap: 'gap' };

/** The page's time of the service's zero, so that the fastest event that any reader has seen took no time. */
export class ServiceClock {
  #offset = Infinity;

  observe(serviceMs, pageMs) {
    this.#offset = Math.min(this.#offset, pageMs - serviceMs);
  }

  /** To be added to a time of the service; 0 before anything was observed. */
  get offset() {
    return Number.isFinite(this.#offset) ? this.#offset : 0;
  }
}

/** The smallest span that ends a scale and holds `ms`. */
export function spanFor(ms) {
  const last = SPANS_S.at(-1);
  return (SPANS_S.find((span) => span * 1000 >= ms) ?? Math.ceil(ms / 1000 / last) * last) * 1000;
}

export class Timeline {
  #clock;
  #columnMs = FIRST_COLUMN_MS;
  #generated = new Uint32Array(COLUMNS);
  #arrived = new Uint32Array(COLUMNS);
  /** For each column of #generated the latest arrival of its tokens. */
  #latest = new Float64Array(COLUMNS);
  #marks = [];
  #outages = [];
  #tokens = 0;
  #transitSum = 0;
  #transitMax = -Infinity;
  #endMs = 0;
  #ended = false;

  /** `clock` is shared by the readers of one generation. */
  constructor(clock) {
    this.#clock = clock;
  }

  /** Notes `count` tokens that were appended at `serviceMs` and arrived at `arrivedMs`. */
  add(serviceMs, arrivedMs, count) {
    if (!(serviceMs >= 0 && arrivedMs >= 0 && count > 0)) return;
    this.#clock.observe(serviceMs, arrivedMs);
    while (Math.max(serviceMs, arrivedMs) >= this.#columnMs * COLUMNS) this.#halveResolution();
    const column = Math.floor(serviceMs / this.#columnMs);
    this.#generated[column] += count;
    this.#latest[column] = Math.max(this.#latest[column], arrivedMs);
    this.#arrived[Math.floor(arrivedMs / this.#columnMs)] += count;
    this.#tokens += count;
    this.#transitSum += (arrivedMs - serviceMs) * count;
    this.#transitMax = Math.max(this.#transitMax, arrivedMs - serviceMs);
    this.#reach(arrivedMs);
  }

  /** Notes what somebody did, or what happened: one of the keys of MARKS. */
  mark(kind, atMs) {
    if (this.#marks.length === MAX_MARKS) this.#marks.shift();
    this.#marks.push({ kind, atMs });
    this.#reach(atMs);
  }

  disconnected(atMs) {
    if (this.#outages.at(-1)?.toMs === null) return;
    if (this.#outages.length === MAX_OUTAGES) this.#outages.shift();
    this.#outages.push({ fromMs: atMs, toMs: null });
    this.#reach(atMs);
  }

  connected(atMs) {
    const last = this.#outages.at(-1);
    if (last?.toMs === null) last.toMs = atMs;
    this.#reach(atMs);
  }

  /** After this, the scale fits what there is. */
  end(atMs) {
    this.connected(atMs);
    this.#ended = true;
  }

  get ended() {
    return this.#ended;
  }

  get spanMs() {
    return this.#ended ? Math.max(this.#endMs, 1) : spanFor(this.#endMs);
  }

  /**
   * Horizontal positions for a strip `width` wide. Ticks lie on a grid, so that many of them do not merge into a bar:
   * `generated` and `arrived` hold each position once. `transits` are pairs of a position of generation and the latest
   * of arrival; `outages` are pairs of begin and end.
   */
  layout(width, nowMs = this.#endMs) {
    if (!this.#ended) this.#reach(nowMs);
    const { spanMs } = this;
    const xOf = (ms) => Math.min(width, (ms / spanMs) * width);
    const tick = (ms) => Math.floor(xOf(ms) / GRID) * GRID;
    const xOfColumn = (column, offset = 0) => tick((column + 0.5) * this.#columnMs + offset);
    const generated = new Map();
    const arrived = new Set();
    for (let column = 0; column < COLUMNS; column++) {
      if (this.#arrived[column] > 0) arrived.add(xOfColumn(column));
      if (this.#generated[column] === 0) continue;
      const x = xOfColumn(column, this.#clock.offset);
      generated.set(x, Math.max(generated.get(x) ?? 0, tick(this.#latest[column])));
    }
    return {
      generated: [...generated.keys()],
      arrived: [...arrived],
      transits: [...generated],
      marks: this.#marks.map(({ kind, atMs }) => ({ kind, x: xOf(atMs) })),
      outages: this.#outages.map(({ fromMs, toMs }) => [xOf(fromMs), xOf(toMs ?? this.#endMs)]),
    };
  }

  /** One sentence for those who cannot see the strip. */
  summary() {
    if (this.#tokens === 0 && this.#marks.length === 0) return 'No tokens yet.';
    const { offset } = this.#clock;
    const parts = [`${plural(this.#tokens, 'token')} in ${formatDuration(this.#endMs)}`];
    if (this.#tokens > 0) {
      const mean = formatDuration(Math.max(0, this.#transitSum / this.#tokens - offset));
      const most = formatDuration(Math.max(0, this.#transitMax - offset));
      parts.push(`they arrived ${mean} after generation on average and ${most} at most`);
    }
    if (this.#outages.length > 0) {
      const lost = this.#outages.reduce((sum, { fromMs, toMs }) => sum + (toMs ?? this.#endMs) - fromMs, 0);
      parts.push(`${plural(this.#outages.length, 'interruption')}, ${formatDuration(lost)} in all`);
    }
    for (const { kind, atMs } of this.#marks) parts.push(`${MARKS[kind]} at ${formatDuration(atMs)}`);
    return `${parts.join('; ')}.`;
  }

  #reach(ms) {
    this.#endMs = Math.max(this.#endMs, ms);
  }

  #halveResolution() {
    for (const counts of [this.#generated, this.#arrived]) {
      for (let i = 0; i < COLUMNS / 2; i++) counts[i] = counts[2 * i] + counts[2 * i + 1];
      counts.fill(0, COLUMNS / 2);
    }
    for (let i = 0; i < COLUMNS / 2; i++) this.#latest[i] = Math.max(this.#latest[2 * i], this.#latest[2 * i + 1]);
    this.#latest.fill(0, COLUMNS / 2);
    this.#columnMs *= 2;
  }
}
