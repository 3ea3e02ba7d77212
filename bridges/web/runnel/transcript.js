// The part of a log that was read: cursor, texts, parts and digests.
import { broken } from './errors.js';
import { ChoiceOutput } from './parts.js';

/** The epoch of an event. Servers without takeovers send none. */
function epochOf({ type, epoch = 0 }) {
  if (Number.isInteger(epoch) && epoch >= 0 && epoch < 2 ** 32) return epoch;
  throw broken('bad_event', `malformed epoch in ${type}`);
}

/** The state of a reader: its cursor, the output so far and its running digests. */
export class Transcript {
  /** @type {Map<number, ChoiceOutput>} */
  #choices = new Map();
  // Without the texts before its cursor, a reader cannot check the digest of the text; without the parts, not theirs.
  #whole;
  /** seq of the last event applied. */
  last = 0;
  /** Epoch of the last event applied: 0 before the first takeover. */
  epoch = 0;
  /**
   * The part that the last event opened, if any.
   * @type {{ choice: number, index: number } | undefined}
   */
  opened;

  /** @param {import('../runnel.js').Cursor} [cursor] */
  constructor({ after = 0, epoch = 0, texts, parts } = {}) {
    this.last = after;
    this.epoch = epoch;
    this.#whole = { textWhole: after === 0 || texts !== undefined, partsWhole: after === 0 || parts !== undefined };
    texts?.forEach((text, index) => this.#choice(index).setText(text));
    parts?.forEach((some, index) => some.forEach((part) => this.#choice(index).restore(part)));
  }

  get whole() {
    return this.#whole.textWhole && [...this.#choices.values()].every((choice) => choice.whole);
  }

  get texts() {
    return this.#indices.map((index) => this.text(index));
  }

  text(index = 0) {
    return this.#choices.get(index)?.text ?? '';
  }

  parts(index = 0) {
    return this.#choices.get(index)?.parts ?? [];
  }

  /** For a cursor: the parts of each choice, empty for a choice of one text part; undefined if they are not known. */
  get details() {
    return this.#whole.partsWhole ? this.#indices.map((index) => this.#choices.get(index)?.details ?? []) : undefined;
  }

  get choices() {
    return [...this.#choices.keys()].sort((a, b) => a - b);
  }

  /**
   * Returns 'applied'; 'repeat' for an event seen before; 'missing' if events between were lost. A malformed event
   * throws bad_event and changes nothing.
   *
   * @param {any} event
   * @returns {'applied' | 'repeat' | 'missing'}
   */
  apply(event) {
    this.opened = undefined;
    if (event.type === 'gap') return this.#replace(event);
    const first = event.first_seq || event.seq;
    const ordered = Number.isSafeInteger(first) && Number.isSafeInteger(event.seq) && first >= 1 && first <= event.seq;
    if (!ordered) throw broken('bad_event', `malformed seq in ${event.type}`);
    const epoch = epochOf(event);
    if (event.seq <= this.last) return 'repeat';
    if (first > this.last + 1) return 'missing';
    // A server never sends an event of which the reader has applied a part, so the two cursors disagree.
    if (first <= this.last) throw broken('bad_event', `events ${first}..${event.seq} overlap cursor ${this.last}`);
    if (event.type === 'delta') this.#append(event);
    this.last = event.seq;
    this.epoch = epoch;
    return 'applied';
  }

  /** Takes the parts that were opened before the cursor, from `attached`. */
  attach(parts) {
    if (!Array.isArray(parts)) throw broken('bad_event', 'malformed attached');
    for (const { choice = 0, index, kind, id, name } of parts) this.#choice(choice).restore({ index, kind, id, name });
  }

  #append(delta) {
    const choice = delta.choice ?? 0;
    const output = this.#find(choice);
    const index = output.append(delta);
    this.#choices.set(choice, output);
    if (index !== undefined) this.opened = { choice, index };
  }

  // Without a snapshot, the output is unknown: the cursor goes back to the beginning, and the log is read again.
  #replace(gap) {
    const seq = gap.snapshot?.seq ?? 0;
    if (!Number.isSafeInteger(seq) || seq < 0) throw broken('bad_event', 'malformed snapshot');
    const epoch = epochOf(gap);
    this.#choices.clear();
    this.#whole = { textWhole: true, partsWhole: true };
    for (const { index = 0, text, parts = [] } of gap.snapshot?.choices ?? []) {
      const choice = this.#choice(index);
      choice.setText(text);
      for (const part of parts) choice.restore(part);
    }
    this.last = seq;
    this.epoch = epoch;
    return gap.snapshot ? 'applied' : 'missing';
  }

  /**
   * Undefined if `done` agrees with what was read, else a description of the difference.
   *
   * @param {import('../runnel.js').DoneEvent} done
   */
  disagreement(done) {
    if (done.events !== done.seq) return `${done.seq} events read, ${done.events} logged`;
    if (!Array.isArray(done.choices)) return 'no choices in done';
    const ends = new Map(done.choices.map((end) => [end.index ?? 0, end]));
    for (const index of this.#choices.keys()) if (!ends.has(index)) return `choice ${index} is not in done`;
    for (const [index, end] of ends) {
      const read = this.#choices.get(index) ?? new ChoiceOutput(this.#whole);
      const difference = read.disagreement(end);
      if (difference) return `choice ${index}: ${difference}`;
    }
    return undefined;
  }

  /**
   * Gives every part its final state: see ChoiceOutput.settle. Without `done`, all are incomplete.
   *
   * @param {import('../runnel.js').DoneEvent} [done]
   */
  settle(done) {
    if (!done) return this.#choices.forEach((choice) => choice.abandon());
    for (const end of done.choices) this.#choice(end.index ?? 0).settle(end);
  }

  #find(index) {
    if (!Number.isInteger(index) || index < 0 || index >= 1024) throw broken('bad_event', 'malformed choice');
    return this.#choices.get(index) ?? new ChoiceOutput(this.#whole);
  }

  #choice(index) {
    const choice = this.#find(index);
    this.#choices.set(index, choice);
    return choice;
  }

  get #indices() {
    return Array.from({ length: Math.max(0, ...[...this.#choices.keys()].map((i) => i + 1)) }, (_, i) => i);
  }
}
