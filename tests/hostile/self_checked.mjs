// A log whose text is not known in advance: checked against its own numbers and digest.
import { crcOf } from '../chaos/checked_log.mjs';

export class SelfChecked {
  /** A greedy generation of `tokens` for a unique prompt. */
  constructor({ seed, tokens }, tally) {
    Object.assign(this, { tally, last: 0, terminal: undefined, text: '' });
    const body = { prompt: `Stream ${seed}: `, max_tokens: tokens, temperature: 0 };
    this.script = { body: () => body };
  }

  connection(name) {
    return { name };
  }

  apply(event, on) {
    const what = `on ${on.name}: ${JSON.stringify(event).slice(0, 300)} after ${this.last}`;
    const first = event.first_seq ?? event.seq;
    if (this.terminal !== undefined) return this.tally.fault('badTerminal', what);
    if (first !== this.last + 1) return this.tally.fault(first <= this.last ? 'duplicated' : 'lost', what);
    this.last = event.seq;
    if (event.type === 'delta') this.text += event.text;
    if (event.type !== 'done' && event.type !== 'failed') return undefined;
    this.terminal = event;
    const [choice] = event.choices ?? [];
    const bytes = Buffer.from(this.text);
    const verified = event.type === 'done' && event.events === event.seq && choice.text_bytes === bytes.length &&
      choice.crc32 === crcOf(bytes);
    return verified || this.tally.fault('unverified', what);
  }
}
