// A log as one reader has read it, compared with its script at every event.
import { appendTo, isPlain, textOf } from './script.mjs';

// Computed here bit by bit, because it must share no code with what it checks.
export function crcOf(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (~crc >>> 0).toString(16).padStart(8, '0');
}

/** Whether a client may execute a call with these arguments, which may be the beginning of an object. */
function isComplete(content, reason) {
  if (content === '') return reason === 'stop' || reason === 'tool_calls';
  return content.endsWith('"}') && ['stop', 'tool_calls', 'length'].includes(reason);
}

/** Whether the digests of a choice in `done` agree with the parts that were read. */
export function agrees(parts, { finish_reason: reason, text_bytes: size, crc32: crc, parts: ends }) {
  const same = (content, bytes, sum) => Buffer.byteLength(content) === bytes && crcOf(Buffer.from(content)) === sum;
  if (!same(textOf(parts), size, crc)) return false;
  if (isPlain(parts)) return ends === undefined;
  return ends?.length === parts.length && ends.every((end, at) => {
    const { kind, content, id, name } = parts[at];
    const complete = kind === 'tool_call' ? isComplete(content, reason) : undefined;
    return end.index === at && end.kind === kind && same(content, end.bytes, end.crc32) && end.id === id &&
      end.name === name && end.complete === complete;
  });
}

/** Counts over all streams; all except those in the first line must stay 0. `gaps` are those without an explanation. */
export class Tally {
  constructor() {
    Object.assign(this, { streams: 0, events: 0, breaks: 0, hops: 0, faulted: 0, cancelled: 0, failed: 0, withParts: 0 });
    /** Gaps and losses that a judge has explained, by their explanation. Not one of the counts. */
    Object.defineProperty(this, 'explained', { value: new Map() });
    Object.assign(this, { lost: 0, duplicated: 0, reordered: 0, wrongText: 0, falseVerified: 0, unverified: 0,
      badTerminal: 0, gaps: 0, refused: 0, stuck: 0 });
    this.firstFaults = [];
    /** Counts of the ways in which connections were cut. */
    this.cuts = new Map();
  }

  cut(transport, why) {
    const key = `${transport}: ${why}`;
    this.cuts.set(key, (this.cuts.get(key) ?? 0) + 1);
    this.breaks++;
  }

  explain(kind, reason) {
    const key = `${kind}: ${reason}`;
    this.explained.set(key, (this.explained.get(key) ?? 0) + 1);
  }

  fault(kind, what) {
    this[kind]++;
    if (this.firstFaults.length < 10) this.firstFaults.push(`${kind}: ${what}`);
  }

  get faults() {
    return this.lost + this.duplicated + this.reordered + this.wrongText + this.falseVerified + this.unverified +
      this.badTerminal + this.gaps + this.refused + this.stuck;
  }
}

/**
 * `judge` says which losses are explained: `gap(log)` and `loss(log)` return a reason, or undefined if there is none;
 * `moved(log)` is called after an event of a later epoch. Without a judge, every gap and every loss is a fault.
 */
export class CheckedLog {
  constructor(script, tally, judge) {
    Object.assign(this, { script, tally, judge, id: undefined, last: 0, epoch: 0, terminal: undefined });
    Object.assign(this, { startedAt: performance.now(), heardAt: performance.now(), gaps: 0, cuts: 0, history: [] });
    this.parts = script.parts(0);
  }

  get texts() {
    return this.parts.map(textOf);
  }

  get ended() {
    return this.terminal !== undefined;
  }

  /** Takes the events of a connection, which must not contain an event twice. */
  connection(name) {
    return { name, last: 0, table: name !== 'runnel.js' && !this.parts.every(isPlain) };
  }

  apply(event, on) {
    const what = `${this.id ?? '?'} on ${on.name}: ${JSON.stringify(event).slice(0, 4000)} after ${this.last}`;
    this.tally.events++;
    this.id ??= event.gen;
    if (event.gen !== this.id) return this.lost() || this.tally.fault('duplicated', `another generation: ${what}`);
    // A gap has the parts itself.
    if (on.last === 0 && on.table && event.type !== 'attached' && event.type !== 'gap') return this.tally.fault('lost', `no table of parts: ${what}`);
    on.table = false;
    if (event.type === 'attached') return this.#attached(event, what);
    if (event.type === 'gap') return this.#gap(event, on, what);
    if (!this.#enter(event.epoch ?? 0)) return this.tally.fault('reordered', `an earlier epoch than ${this.epoch}: ${what}`);
    const first = event.first_seq ?? event.seq;
    if (!(Number.isSafeInteger(event.seq) && first >= 1 && first <= event.seq)) return this.tally.fault('lost', what);
    if (event.seq < on.last) return this.tally.fault('reordered', what);
    on.last = event.seq;
    if (this.ended) return this.tally.fault('badTerminal', `after the end: ${what}`);
    if (first <= this.last) return this.tally.fault('duplicated', what);
    if (first > this.last + 1) return this.tally.fault('lost', what);
    this.last = event.seq;
    if (event.type === 'started') return event.seq === 1 || this.tally.fault('reordered', what);
    if (event.type === 'delta') return this.#delta(event, first, what);
    if (event.type === 'done' || event.type === 'failed') return this.#end(event, what);
    this.tally.fault('wrongText', `an unknown event: ${what}`);
  }

  /**
   * Takes the epoch of an event; false if it is before that of the cursor. The first event is the same in all epochs, so
   * a reader that has no other needs no gap where one with more gets one.
   */
  #enter(epoch) {
    if (epoch < this.epoch) {
      const reason = this.last <= 1 ? this.judge?.gap(this) : undefined;
      if (reason === undefined) return false;
      this.tally.explain('earlier epoch', reason);
    }
    const before = this.epoch;
    this.epoch = epoch;
    if (epoch !== before) this.history.push(`epoch ${epoch} after ${this.last}`);
    if (epoch > before) this.judge?.moved(this);
    this.heardAt = performance.now();
    return true;
  }

  /** Its life, for a fault that nothing explains. */
  describe() {
    return [this.again ? 'read again' : 'read', ...this.history, this.judge?.describe?.(this)].join('; ');
  }

  /**
   * Someone who reads again from the beginning has no cursor that could show that the log is another one now: a replica
   * that was stopped has what it made until it learns that it was taken over. Explained as a gap is, which a reader with a
   * cursor would get.
   */
  #replaced() {
    const reason = this.judge?.gap(this);
    if (reason === undefined) return false;
    this.tally.explain('read again differently', reason);
    this.terminal = { type: 'lost' };
    return true;
  }

  /** Ends the log if its loss is explained. */
  lost() {
    const reason = this.judge?.loss(this);
    if (reason === undefined) return false;
    this.tally.explain('lost', reason);
    this.terminal = { type: 'lost' };
    return true;
  }

  /** The snapshot replaces everything. Its epoch may be an earlier one: that of a replica which was cut from the store. */
  #gap(event, on, what) {
    const reason = this.judge?.gap(this);
    if (reason === undefined) return this.tally.fault('gaps', `${what}; ${this.describe()}`);
    this.tally.explain('gap', reason);
    this.gaps++;
    this.history.push(`gap to epoch ${event.epoch ?? 0} at ${event.snapshot?.seq ?? 0}`);
    if (event.requested_after !== this.last) return this.tally.fault('wrongText', `not a gap after this cursor: ${what}`);
    this.epoch = event.epoch ?? 0;
    this.last = event.snapshot?.seq ?? 0;
    on.last = this.last;
    this.heardAt = performance.now();
    const choices = event.snapshot?.choices ?? [];
    this.parts = this.script.parts(0).map((_, index) => {
      const { text = '', parts } = choices.find((choice) => (choice.index ?? 0) === index) ?? {};
      if (parts !== undefined) return parts.map(({ kind, content, id, name }) => ({ kind, content, ...(id !== undefined && { id, name }) }));
      return text === '' ? [] : [{ kind: 'text', content: text }];
    });
    if (this.script.relearn?.(this.parts, this.last, this.epoch) === false) return this.tally.fault('wrongText', what);
    const right = JSON.stringify(this.script.parts(this.last)) === JSON.stringify(this.parts);
    return right || this.tally.fault('wrongText', `the snapshot of ${what}`);
  }

  #delta(event, first, what) {
    const wrong = () => (this.again && (this.lost() || this.#replaced())) || this.tally.fault('wrongText', `${what}; ${this.describe()}`);
    if (this.script.learn?.(event, first) === false) return wrong();
    const expected = this.script.delta(first);
    if (expected === undefined) return wrong();
    let content = '';
    for (let seq = first; seq <= event.seq; seq++) {
      const each = this.script.delta(seq);
      if (each?.choice !== expected.choice || each.part !== expected.part || (each.id !== undefined && seq > first)) return wrong();
      content += each.content;
    }
    const isText = expected.kind === 'text';
    const right = event.choice === expected.choice && (event.part ?? 0) === expected.part && (event.kind ?? 'text') === expected.kind &&
      (event.text || '') === (isText ? content : '') && (event.content ?? '') === (isText ? '' : content) &&
      event.id === expected.id && event.name === expected.name &&
      event.tokens === (this.script.tokensOfDelta ?? event.seq - first + 1);
    if (!right) return wrong();
    appendTo(this.parts, { ...expected, content });
  }

  /** The table of parts at the cursor, which says what the reader knows. */
  #attached(event, what) {
    const opened = this.parts.flatMap((parts, choice) => (isPlain(parts) ? []
      : parts.map(({ kind, content, id, name }, index) => ({ choice, index, kind, bytes: Buffer.byteLength(content), id, name }))));
    const told = (event.parts ?? []).map(({ choice, index, kind, bytes, id, name }) => ({ choice, index, kind, bytes, id, name }));
    if (JSON.stringify(told) !== JSON.stringify(opened)) this.tally.fault('wrongText', what);
  }

  #end(event, what) {
    this.terminal = event;
    this.endedAt = this.heardAt;
    // A reader may hear late of the end. Its start may have been delayed, but not its events before they were made.
    this.endedFrom = Math.min(this.endedAt, this.startedAt + (event.ms ?? 0));
    if (event.type === 'failed') {
      // A drain that cannot hand over, because the store is away until its end, ends what runs.
      if (['generation_lost', 'draining'].includes(event.error.code) && this.lost()) return true;
      const planned = this.script.fails && event.seq === this.script.lastSeq && event.error.code === 'engine_failed';
      this.tally.failed++;
      return planned || this.tally.fault('badTerminal', what);
    }
    const cancelled = event.choices.some((choice) => choice.finish_reason === 'cancelled');
    // A choice may have ended before its generation was cancelled.
    const reasons = event.choices.every(({ index, finish_reason: reason }) =>
      reason === (this.script.reasons?.[index] ?? (cancelled ? 'cancelled' : this.script.finishReason)) || (cancelled && reason === 'cancelled'));
    if (!reasons) this.tally.fault('badTerminal', what);
    if (cancelled) this.tally.cancelled++;
    const whole = event.seq === this.script.lastSeq && !this.script.fails;
    if (!(cancelled ? this.script.cancelAt !== undefined : whole)) this.tally.fault('badTerminal', what);
    const verified = event.events === event.seq && event.choices.length === this.script.choices &&
      event.choices.every((choice) => agrees(this.parts[choice.index] ?? [], choice));
    if (!verified) this.tally.fault('unverified', what);
    const right = JSON.stringify(this.script.parts(event.seq - 1)) === JSON.stringify(this.parts);
    if (this.parts.flat().some(({ kind }) => kind !== 'text')) this.tally.withParts++;
    if (verified && !right) this.tally.fault('falseVerified', what);
  }
}
