// The part of a log that was read: cursor, texts and digests.
import { crc32, hex8, utf8 } from './crc32.js';
import { broken } from './errors.js';

/** The state of a reader: its cursor, the texts so far and their running digests. */
export class Transcript {
  #choices = new Map();
  // False if the reader began after a cursor without the texts before it. The digest cannot be checked then.
  #whole = true;
  /** seq of the last event applied. */
  last = 0;

  /** @param {{ after?: number, texts?: string[] }} [cursor] */
  constructor({ after = 0, texts } = {}) {
    this.last = after;
    if (texts) texts.forEach((text, index) => this.#append(index, text));
    else this.#whole = after === 0;
  }

  get whole() {
    return this.#whole;
  }

  get texts() {
    return Array.from({ length: Math.max(0, ...[...this.#choices.keys()].map((i) => i + 1)) }, (_, i) => this.text(i));
  }

  text(index = 0) {
    return this.#choices.get(index)?.text ?? '';
  }

  /**
   * Returns 'applied'; 'repeat' for an event seen before; 'missing' if events between were lost. A malformed event
   * throws bad_event and changes nothing.
   *
   * @param {any} event
   * @returns {'applied' | 'repeat' | 'missing'}
   */
  apply(event) {
    if (event.type === 'gap') return this.#replace(event);
    const first = event.first_seq || event.seq;
    const ordered = Number.isSafeInteger(first) && Number.isSafeInteger(event.seq) && first >= 1 && first <= event.seq;
    if (!ordered) throw broken('bad_event', `malformed seq in ${event.type}`);
    if (event.seq <= this.last) return 'repeat';
    if (first > this.last + 1) return 'missing';
    // A server never sends an event of which the reader has applied a part, so the two cursors disagree.
    if (first <= this.last) throw broken('bad_event', `events ${first}..${event.seq} overlap cursor ${this.last}`);
    if (event.type === 'delta') this.#append(event.choice ?? 0, event.text);
    this.last = event.seq;
    return 'applied';
  }

  #append(index, text) {
    const sound = Number.isInteger(index) && index >= 0 && index < 1024 && typeof text === 'string';
    if (!sound) throw broken('bad_event', 'malformed delta');
    const choice = this.#choices.get(index) ?? { text: '', bytes: 0, crc: 0 };
    const bytes = utf8.encode(text);
    choice.text += text;
    choice.bytes += bytes.length;
    choice.crc = crc32(bytes, choice.crc);
    this.#choices.set(index, choice);
  }

  // Without a snapshot, the text is unknown: the cursor goes back to the beginning, and the log is read again.
  #replace(gap) {
    const seq = gap.snapshot?.seq ?? 0;
    if (!Number.isSafeInteger(seq) || seq < 0) throw broken('bad_event', 'malformed snapshot');
    this.#choices.clear();
    for (const { index, text } of gap.snapshot?.choices ?? []) this.#append(index ?? 0, text);
    this.#whole = true;
    this.last = seq;
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
      const read = this.#choices.get(index) ?? { bytes: 0, crc: 0 };
      if (!this.#whole) {
        if (!(read.bytes <= end.text_bytes)) return `choice ${index}: ${read.bytes} bytes of ${end.text_bytes}`;
      } else if (read.bytes !== end.text_bytes) {
        return `choice ${index}: ${read.bytes} bytes read, ${end.text_bytes} sent`;
      } else if (hex8(read.crc) !== end.crc32) {
        return `choice ${index}: CRC-32 ${hex8(read.crc)} read, ${end.crc32} sent`;
      }
    }
    return undefined;
  }
}
