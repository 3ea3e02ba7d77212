// When the tokens of a generation were generated and when they arrived at one reader, in bounded memory, and how to lay
// that out.
//
// Generation times are the service's (`ms` of an event, from created_at). All other times are milliseconds of the page
// since the question was sent. GenerationTimes relates the two.

import { formatDuration, plural } from './format.js';

export const COLUMNS = 1024;
const FIRST_COLUMN_MS = 4;
const MAX_MARKS = 32;
const MAX_OUTAGES = 64;
// Ticks lie on a grid of this width, so that many of them do not merge into a bar.
const GRID = 2;
// The scale grows in steps, so that nothing moves between them.
const SPANS_S = [5, 10, 20, 30, 60, 120, 180, 300, 600, 1200, 1800, 3600];
const MARKS = { drop: 'connection dropped', switch: 'transport switched', stop: 'stopped', gap: 'gap' };

/** Values by time in COLUMNS columns, whose width doubles whenever a time lies past the last one. */
class Columns {
  #width = FIRST_COLUMN_MS;
  #values = new Float64Array(COLUMNS);
  #join;

  /** `join` combines the values of two columns. 0 stands for an empty column. */
  constructor(join) {
    this.#join = join;
  }

  add(ms, value) {
    while (ms >= this.#width * COLUMNS) this.#halve();
    const column = Math.floor(ms / this.#width);
    this.#values[column] = this.#join(this.#values[column], value);
  }

  /** The columns that hold something, in order. */
  entries() {
    const entries = [];
    this.#values.forEach((value, column) => {
      const from = column * this.#width;
      if (value > 0) entries.push({ from, middle: from + this.#width / 2, to: from + this.#width, value });
    });
    return entries;
  }

  #halve() {
    const values = this.#values;
    for (let i = 0; i < COLUMNS / 2; i++) values[i] = this.#join(values[2 * i], values[2 * i + 1]);
    values.fill(0, COLUMNS / 2);
    this.#width *= 2;
  }
}

/**
 * When the tokens of one generation were generated. All its readers share this, because a reader that lags gets several
 * tokens as one event, with the time of the last one only.
 */
export class GenerationTimes {
  #offset = Infinity;
  #tokens = new Columns(Math.max);

  /** Notes an event that was appended at `serviceMs` and arrived at `pageMs`. */
  observe({ type, ms }, pageMs) {
    if (!(ms >= 0 && pageMs >= 0)) return;
    this.#offset = Math.min(this.#offset, pageMs - ms);
    if (type === 'delta') this.#tokens.add(ms, 1);
  }

  /**
   * The page's time at which the service's time is 0, so that the fastest event of all readers took no time. 0 before
   * the first event.
   */
  get offset() {
    return Number.isFinite(this.#offset) ? this.#offset : 0;
  }

  /** Columns of the service's time in which tokens were generated. */
  tokens() {
    return this.#tokens.entries();
  }
}

/** The smallest span that ends a scale and holds `ms`. */
export function spanFor(ms) {
  const last = SPANS_S.at(-1);
  return (SPANS_S.find((span) => span * 1000 >= ms) ?? Math.ceil(ms / 1000 / last) * last) * 1000;
}

export class Timeline {
  #times;
  #arrived = new Columns(Math.max);
  /** By generation time, the latest arrival. */
  #arrivals = new Columns(Math.max);
  #marks = [];
  #outages = [];
  #tokens = 0;
  #transitSum = 0;
  #transitMax = -Infinity;
  #endMs = 0;
  #ended = false;

  /** `times` are the GenerationTimes of the generation. */
  constructor(times) {
    this.#times = times;
  }

  /** Notes an event that arrived at `pageMs`. */
  add(event, pageMs) {
    const { type, ms, tokens = 1 } = event;
    if (!(ms >= 0 && pageMs >= 0)) return;
    this.#times.observe(event, pageMs);
    if (type === 'gap') this.mark('gap', pageMs);
    if (type !== 'delta' || !(tokens > 0)) return;
    this.#arrived.add(pageMs, 1);
    this.#arrivals.add(ms, pageMs);
    this.#tokens += tokens;
    this.#transitSum += (pageMs - ms) * tokens;
    this.#transitMax = Math.max(this.#transitMax, pageMs - ms);
    this.#reach(pageMs);
  }

  /** Marks a moment. `kind` is one of the keys of MARKS. */
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

  /** Ends the timeline. The scale then fits its content. */
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
   * Horizontal positions for a strip `width` wide. `generated` and `arrived` are positions of ticks, each once.
   * `transits` are pairs of a tick of generation and the latest one of arrival. `outages` are pairs of begin and end.
   */
  layout(width, nowMs = this.#endMs) {
    if (!this.#ended) this.#reach(nowMs);
    const { spanMs } = this;
    const xOf = (ms) => Math.min(width, (ms / spanMs) * width);
    const tick = (ms) => Math.floor(xOf(ms) / GRID) * GRID;
    const generated = new Set();
    const transits = new Map();
    for (const { middle, arrivedMs } of this.#transits()) {
      const x = tick(middle + this.#times.offset);
      generated.add(x);
      if (arrivedMs > 0) transits.set(x, Math.max(transits.get(x) ?? 0, tick(arrivedMs)));
    }
    return {
      generated: [...generated],
      arrived: [...new Set(this.#arrived.entries().map(({ middle }) => tick(middle)))],
      transits: [...transits],
      marks: this.#marks.map(({ kind, atMs }) => ({ kind, x: xOf(atMs) })),
      outages: this.#outages.map(({ fromMs, toMs }) => [xOf(fromMs), xOf(toMs ?? this.#endMs)]),
    };
  }

  /** The content of the strip in one sentence, for screen readers. */
  summary() {
    if (this.#tokens === 0 && this.#marks.length === 0) return 'No tokens yet.';
    const { offset } = this.#times;
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

  /** Times of generation, each with the arrival of the event itself or of the one that it was merged into; 0: none. */
  #transits() {
    const arrivals = this.#arrivals.entries();
    let next = 0;
    return this.#times.tokens().map(({ from, middle }) => {
      while (next < arrivals.length && arrivals[next].to <= from) next++;
      return { middle, arrivedMs: arrivals[next]?.value ?? 0 };
    });
  }
}
