// The log of one generation as the inference service keeps it, small enough to serve as a specification.
import { randomBytes } from 'node:crypto';
import { crc32 } from '../../../../bridges/web/runnel.js';

const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567';
const WORDS = ('the runnel carries every token of the answer from the hill down to the sea and not one of them is lost ' +
  'on the way — naïve queues überlaufen, cursors do not 🌊').split(' ');

export function newGenerationId() {
  return `gen_${Array.from(randomBytes(26), (byte) => BASE32[byte & 31]).join('')}`;
}

/** Deterministic words; the same n gives the same word. */
export const word = (n) => `${n % 23 === 22 ? '\n\n' : n === 0 ? '' : ' '}${WORDS[n % WORDS.length]}`;

export class FakeGeneration {
  events = [];
  choices = [];
  /** By choice and index, the parts of a choice that is not a single text part. */
  parts = [];
  status = 'running';
  cancelled = false;
  epoch = 0;
  // How far cursors of earlier epochs are right.
  #limits = [];
  #createdAt = Date.now();
  #waiters = new Set();
  #stop = () => {};

  constructor({ id = newGenerationId(), model = 'scripted' } = {}) {
    this.id = id;
    this.model = model;
    this.append({ type: 'started', model, created_at: new Date(this.#createdAt).toISOString(), prompt_tokens: 9, ms: 0 });
  }

  get lastSeq() {
    return this.events.length;
  }

  get ended() {
    return this.status !== 'running';
  }

  append({ type, ...fields }) {
    this.events.push({ type, gen: this.id, seq: this.lastSeq + 1, ms: Date.now() - this.#createdAt, ...fields });
    for (const wake of [...this.#waiters]) wake();
    return this;
  }

  /** `more` may set `ms`, for tests with a fake clock. */
  delta(text, choice = 0, more = {}) {
    this.choices[choice] = (this.choices[choice] ?? '') + text;
    if (this.parts[choice] || more.part > 0) this.#part(choice, more.part ?? 0, 'text').content += text;
    return this.append({ type: 'delta', choice, text, tokens: 1, ...more });
  }

  /** A delta of another kind than text. For a call, `more` has `id` and `name` in the delta that opens it. */
  other(part, kind, content, more = {}) {
    this.choices[0] ??= '';
    const own = this.#part(0, part, kind);
    own.content += content;
    const { id, name } = more;
    if (id !== undefined) Object.assign(own, { id, name });
    return this.append({ type: 'delta', choice: 0, part, kind, text: '', content, tokens: 1, ...more });
  }

  #part(choice, index, kind) {
    const text = this.choices[choice] ?? '';
    this.parts[choice] ??= text && index > 0 ? [{ index: 0, kind: 'text', content: text }] : [];
    return (this.parts[choice][index] ??= { index, kind, content: '' });
  }

  words(count) {
    for (let n = 0; n < count; n++) this.delta(word(n));
    return this;
  }

  done(finishReason = 'stop') {
    const choices = this.choices.map((text, index) => {
      const bytes = Buffer.from(text);
      const end = { index, finish_reason: finishReason, text_bytes: bytes.length, crc32: hex(bytes) };
      return this.parts[index] ? { ...end, parts: this.parts[index].map((part) => endOf(part, finishReason)) } : end;
    });
    const completion = this.events.filter((event) => event.type === 'delta').length;
    const usage = { prompt_tokens: 9, completion_tokens: completion, total_tokens: 9 + completion };
    this.#end('done');
    return this.append({ type: 'done', final: true, events: this.lastSeq + 1, choices, usage });
  }

  failed(error = { code: 'engine_failed', message: 'the engine failed', retryable: true }) {
    this.#end('failed');
    return this.append({ type: 'failed', final: true, error });
  }

  cancel() {
    this.cancelled = true;
    if (!this.ended) this.done('cancelled');
  }

  #end(status) {
    this.status = status;
    this.#stop();
  }

  /** Appends one word after another, as a model would. */
  play({ tokens = 60, tokensPerSecond = 20, firstTokenMs = 150 } = {}) {
    let timer = setTimeout(() => {
      let n = 0;
      timer = setInterval(() => {
        this.delta(word(n));
        if (++n >= tokens) this.done();
      }, 1000 / tokensPerSecond);
    }, firstTokenMs);
    this.#stop = () => (clearTimeout(timer), clearInterval(timer));
    return this;
  }

  stop() {
    this.#stop();
  }

  /** Resolves when there is something after the cursor or the log has ended; also when `signal` is aborted. */
  changed({ seq, epoch }, signal) {
    if (this.lastSeq > seq || this.ended || signal.aborted || this.#isLost({ seq, epoch })) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = () => {
        signal.removeEventListener('abort', wake);
        this.#waiters.delete(wake);
        resolve();
      };
      this.#waiters.add(wake);
      signal.addEventListener('abort', wake);
    });
  }

  /** Another replica continues the log, of which it has all but the last `lost` events. */
  takeOver(epoch, lost = 0) {
    this.events.length -= lost;
    this.#limits.push({ epoch: this.epoch, seq: this.lastSeq });
    this.epoch = epoch;
    this.choices = [];
    for (const { choice, text } of this.events.filter(({ type }) => type === 'delta')) {
      this.choices[choice] = (this.choices[choice] ?? '') + text;
    }
    return this;
  }

  #isLost({ seq, epoch }) {
    const known = epoch === this.epoch || this.#limits.some((limit) => limit.epoch === epoch);
    return !known || this.#limits.some((limit) => limit.epoch >= epoch && seq > limit.seq);
  }

  #inEpoch(events) {
    return this.epoch === 0 ? events : events.map((event) => ({ ...event, epoch: this.epoch }));
  }

  gap(after, reason = 'after_beyond_end') {
    const choices = this.choices.map((text, index) => ({ index, text, parts: this.parts[index] }));
    // A snapshot holds texts but never the end. The terminal event follows it.
    const seq = this.ended ? this.lastSeq - 1 : this.lastSeq;
    return {
      type: 'gap', gen: this.id, seq, requested_after: after, first_available: seq + 1, reason,
      snapshot: { seq, choices },
    };
  }

  /** The parts that `attached` names for a reader with this cursor, or undefined if there is only text. */
  opened(seq) {
    const parts = [];
    for (const { type, choice, part = 0, kind = 'text', text, content = text, id, name } of this.events.slice(0, seq)) {
      if (type !== 'delta') continue;
      const known = parts.find((each) => each.choice === choice && each.index === part);
      if (known) known.bytes += Buffer.byteLength(content);
      else parts.push({ choice, index: part, kind, id, name, bytes: Buffer.byteLength(content) });
    }
    return parts.some(({ kind, index }) => kind !== 'text' || index > 0) ? parts : undefined;
  }

  /** The events for a reader with this cursor, or a gap if the cursor lies past the end, also of its epoch. */
  after({ seq, epoch }) {
    if (this.#isLost({ seq, epoch })) return this.#inEpoch([this.gap(seq, 'tail_lost')]);
    return this.#inEpoch(seq > this.lastSeq ? [this.gap(seq)] : this.events.slice(seq));
  }
}

/** `17` or `17.65537`; NaN for anything else. */
export function readPosition(text) {
  const [, seq, epoch = 0] = /^(\d+)(?:\.(\d+))?$/.exec(text) ?? [];
  return { seq: Number(seq), epoch: Number(epoch) };
}

const hex = (bytes) => crc32(bytes).toString(16).padStart(8, '0');

function endOf({ index, kind, content, id, name }, finishReason) {
  const bytes = Buffer.from(content);
  const end = { index, kind, bytes: bytes.length, crc32: hex(bytes) };
  const complete = finishReason === 'stop' || finishReason === 'tool_calls';
  return kind === 'tool_call' ? { ...end, id, name, complete } : end;
}

/** Joins runs of deltas of one part, as the service does for a reader that lags. */
export function merge(events) {
  const merged = [];
  for (const event of events) {
    const last = merged.at(-1);
    const same = last?.type === 'delta' && last.choice === event.choice && last.part === event.part;
    if (event.type === 'delta' && same && event.id === undefined) {
      merged[merged.length - 1] = {
        ...last, ...event, first_seq: last.first_seq ?? last.seq, text: last.text + event.text,
        tokens: last.tokens + event.tokens,
      };
      if (event.kind) merged.at(-1).content = last.content + event.content;
    } else merged.push(event);
  }
  return merged;
}
