// A log as one reader has read it, compared with its script at every event.

// Computed here bit by bit, because it must share no code with what it checks.
export function crcOf(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (~crc >>> 0).toString(16).padStart(8, '0');
}

/** Counts over all streams; all except those in the first line must stay 0. */
export class Tally {
  constructor() {
    Object.assign(this, { streams: 0, events: 0, breaks: 0, hops: 0, faulted: 0, cancelled: 0, failed: 0 });
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

  fault(kind, what) {
    this[kind]++;
    if (this.firstFaults.length < 10) this.firstFaults.push(`${kind}: ${what}`);
  }

  get faults() {
    return this.lost + this.duplicated + this.reordered + this.wrongText + this.falseVerified + this.unverified +
      this.badTerminal + this.gaps + this.refused + this.stuck;
  }
}

export class CheckedLog {
  constructor(script, tally) {
    Object.assign(this, { script, tally, id: undefined, last: 0, terminal: undefined });
    this.texts = script.texts(0);
  }

  get ended() {
    return this.terminal !== undefined;
  }

  /** Takes the events of a connection, which must not contain an event twice. */
  connection(name) {
    return { name, last: 0 };
  }

  apply(event, on) {
    const what = `${this.id ?? '?'} on ${on.name}: ${JSON.stringify(event).slice(0, 300)} after ${this.last}`;
    this.tally.events++;
    this.id ??= event.gen;
    if (event.gen !== this.id) return this.tally.fault('duplicated', `another generation: ${what}`);
    if (event.type === 'gap') return this.tally.fault('gaps', what);
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

  #delta(event, first, what) {
    let text = '';
    for (let seq = first; seq <= event.seq; seq++) {
      const expected = this.script.delta(seq);
      if (expected?.choice !== event.choice) return this.tally.fault('wrongText', what);
      text += expected.text;
    }
    if (text !== event.text || event.tokens !== event.seq - first + 1) return this.tally.fault('wrongText', what);
    this.texts[event.choice] += event.text;
  }

  #end(event, what) {
    this.terminal = event;
    if (event.type === 'failed') {
      const planned = this.script.fails && event.seq === this.script.lastSeq && event.error.code === 'engine_failed';
      this.tally.failed++;
      return planned || this.tally.fault('badTerminal', what);
    }
    const cancelled = event.choices.some((choice) => choice.finish_reason === 'cancelled');
    if (cancelled) this.tally.cancelled++;
    const whole = event.seq === this.script.lastSeq && !this.script.fails;
    if (!(cancelled ? this.script.cancelAt !== undefined : whole)) this.tally.fault('badTerminal', what);
    const verified = event.events === event.seq && event.choices.length === this.script.choices &&
      event.choices.every(({ index, text_bytes, crc32: crc }) => {
        const bytes = Buffer.from(this.texts[index] ?? '');
        return bytes.length === text_bytes && crcOf(bytes) === crc;
      });
    if (!verified) this.tally.fault('unverified', what);
    const right = this.script.texts(event.seq - 1).every((text, choice) => text === this.texts[choice]);
    if (verified && !right) this.tally.fault('falseVerified', what);
  }
}
