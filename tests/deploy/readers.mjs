// Readers that always read an answer, one after another, and hold each event against what the engine must have said.
import { setMaxListeners } from 'node:events';
import { stream as newestStream } from '../../bridges/web/runnel.js';
import { CheckedLog, Tally } from '../chaos/checked_log.mjs';
import { Script } from '../chaos/script.mjs';

/** `q` of the numbers are at most so much. */
function quantile(numbers, q) {
  const sorted = Float64Array.from(numbers).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0;
}

/** Numbers of milliseconds by what they are of. */
class Times {
  #of = new Map();

  add(what, ms) {
    const numbers = this.#of.get(what) ?? [];
    this.#of.set(what, numbers);
    numbers.push(ms);
  }

  lines() {
    return [...this.#of].map(([what, numbers]) => {
      const [middle, high, longest] = [0.5, 0.99, 1].map((q) => `${Math.round(quantile(numbers, q))}`);
      return `${what}: p50 ${middle} ms, p99 ${high} ms, longest ${longest} ms, of ${numbers.length}`;
    });
  }
}

export class Readers {
  #stopped = false;
  #abandon = new AbortController();
  #running = [];
  #times = new Times();
  tally = new Tally();
  verified = 0;
  /** How often one went on elsewhere, by transport. */
  moves = {};

  /**
   * `count` readers of answers of `tokens` at `pace` tokens a second; reader i reads as `optionsOf(i)` says, by the
   * runnel.js of this release unless it has another `stream`.
   */
  constructor(count, { tokens, pace }, optionsOf) {
    // Each reader listens.
    setMaxListeners(0, this.#abandon.signal);
    this.#running = Array.from({ length: count },
      (_, i) => this.#read(new Script({ seed: i + 1, tokens, pace }), optionsOf(i)));
  }

  /** Lets every answer come to its end. */
  async finish() {
    this.#stopped = true;
    await Promise.all(this.#running);
  }

  /** Reads no further. */
  abandon() {
    this.#stopped = true;
    this.#abandon.abort();
  }

  async #read(script, { stream = newestStream, ...options }) {
    while (!this.#stopped) {
      this.tally.streams++;
      const reading = { waited: 0 };
      const answer = stream(script.body(), {
        ...options, signal: this.#abandon.signal,
        onNotice: (notice) => {
          if (notice.type === 'waiting') reading.waited += notice.ms;
        },
        onStatus: (status, { transport, lastError }) => {
          if (status === 'reconnecting') this.tally.cut(transport, `${lastError.code}: ${lastError.message}`);
        },
      });
      try {
        await this.#follow(answer, new CheckedLog(script, this.tally), reading);
      } catch (error) {
        this.tally.fault('refused', `${answer.id}: ${error.code}: ${error.message}`);
      }
    }
  }

  async #follow(answer, log, reading) {
    // Below, `for await` throws the same.
    answer.result.catch(() => {});
    const { transport } = answer;
    const on = log.connection(transport);
    let at = performance.now();
    let moves = 0;
    let longest = 0;
    for await (const event of answer) {
      log.apply(event, on);
      const ms = performance.now() - at;
      const moved = answer.stats.reconnects - moves;
      this.#note(event.seq === 1, moved > 0, transport, ms, reading.waited);
      if (event.seq > 1) longest = Math.max(longest, ms);
      at += ms;
      moves += moved;
      reading.waited = 0;
    }
    if ((await answer.result).verified) this.verified++;
    this.moves[transport] = (this.moves[transport] ?? 0) + moves;
    this.#times.add('stall, the longest silence within an answer', longest);
  }

  #note(begins, moved, transport, ms, waited) {
    if (begins) return this.#times.add(`from asking to the first event, ${transport}`, ms);
    if (!moved) return this.#times.add('from event to event, no move between', ms);
    this.#times.add(`from event to event, a move between, ${transport}`, ms);
    this.#times.add(`  of which it waits on purpose, ${transport}`, waited);
  }

  report() {
    const { tally } = this;
    return [
      `${tally.streams} answers, ${this.verified} verified, ${tally.events} events: ${tally.lost} lost, ` +
        `${tally.duplicated} duplicated, ${tally.faults} faults in all`,
      `went on elsewhere: ${JSON.stringify(this.moves)}`,
      ...[...tally.cuts].map(([why, count]) => `  ${count} times ${why}`),
      ...this.#times.lines(),
    ];
  }
}
