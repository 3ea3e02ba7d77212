// Readers that read one generation after another and compare each event with the scripted engine's text.
import { setMaxListeners } from 'node:events';
import { stream as newestStream } from '../../bridges/web/runnel.js';
import { CheckedLog, Tally } from '../chaos/checked_log.mjs';
import { Script } from '../chaos/script.mjs';

/** The quantile `q` of the numbers. */
function quantile(numbers, q) {
  const sorted = Float64Array.from(numbers).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0;
}

/** Times in milliseconds, by name. */
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
  /** Number of times that a reader moved to another process, by transport. */
  moves = {};

  /**
   * `count` readers of generations of `tokens` at `pace` tokens a second. Reader i uses the options `optionsOf(i)`,
   * with the runnel.js of this release unless they have another `stream`.
   */
  constructor(count, { tokens, pace }, optionsOf) {
    // Each reader adds a listener.
    setMaxListeners(0, this.#abandon.signal);
    this.#running = Array.from({ length: count },
      (_, i) => this.#read(new Script({ seed: i + 1, tokens, pace }), optionsOf(i)));
  }

  /** Reads every generation to its end. */
  async finish() {
    this.#stopped = true;
    await Promise.all(this.#running);
  }

  /** Stops reading immediately. */
  abandon() {
    this.#stopped = true;
    this.#abandon.abort();
  }

  async #read(script, { stream = newestStream, ...options }) {
    while (!this.#stopped) {
      this.tally.streams++;
      const reading = { waited: 0 };
      const generation = stream(script.body(), {
        ...options, signal: this.#abandon.signal,
        onNotice: (notice) => {
          if (notice.type === 'waiting') reading.waited += notice.ms;
        },
        onStatus: (status, { transport, lastError }) => {
          if (status === 'reconnecting') this.tally.cut(transport, `${lastError.code}: ${lastError.message}`);
        },
      });
      try {
        await this.#follow(generation, new CheckedLog(script, this.tally), reading);
      } catch (error) {
        this.tally.fault('refused', `${generation.id}: ${error.code}: ${error.message}`);
      }
    }
  }

  async #follow(generation, log, reading) {
    // The `for await` below throws the same error.
    generation.result.catch(() => {});
    const { transport } = generation;
    const on = log.connection(transport);
    let at = performance.now();
    let moves = 0;
    let longest = 0;
    for await (const event of generation) {
      log.apply(event, on);
      const ms = performance.now() - at;
      const moved = generation.stats.reconnects - moves;
      this.#note(event.seq === 1, moved > 0, transport, ms, reading.waited);
      if (event.seq > 1) longest = Math.max(longest, ms);
      at += ms;
      moves += moved;
      reading.waited = 0;
    }
    if ((await generation.result).verified) this.verified++;
    this.moves[transport] = (this.moves[transport] ?? 0) + moves;
    this.#times.add('stall, the longest silence within a generation', longest);
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
      `${tally.streams} generations, ${this.verified} verified, ${tally.events} events: ${tally.lost} lost, ` +
        `${tally.duplicated} duplicated, ${tally.faults} faults in all`,
      `went on elsewhere: ${JSON.stringify(this.moves)}`,
      ...[...tally.cuts].map(([why, count]) => `  ${count} times ${why}`),
      ...this.#times.lines(),
    ];
  }
}
