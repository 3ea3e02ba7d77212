// Readers that always read an answer, one after another, and hold each to account.
import { setMaxListeners } from 'node:events';
import { stream } from '../../bridges/web/runnel.js';

/** The value below which the share `q` of the numbers is. */
function quantile(numbers, q) {
  const sorted = Float64Array.from(numbers).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0;
}

export class Readers {
  #stopped = false;
  #abandon = new AbortController();
  #running = [];
  started = 0;
  verified = 0;
  reconnects = 0;
  /** What was not as it has to be: lost, doubled or out of order, unverified, failed. */
  faults = [];
  #gapsMs = [];
  #stallsMs = [];

  constructor(count, request, options) {
    // Each reader listens.
    setMaxListeners(0, this.#abandon.signal);
    this.#running = Array.from({ length: count }, () => this.#read(request, options));
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

  async #read(request, options) {
    const { signal } = this.#abandon;
    while (!this.#stopped) {
      this.started++;
      const answer = stream(request, { ...options, signal });
      // Below, `for await` throws the same.
      answer.result.catch(() => {});
      try {
        await this.#follow(answer);
      } catch (error) {
        this.faults.push(`${answer.id}: ${error.code}: ${error.message}`);
      }
      this.reconnects += answer.stats.reconnects;
    }
  }

  async #follow(answer) {
    let last = 0;
    let at;
    let longest = 0;
    for await (const event of answer) {
      const first = event.first_seq ?? event.seq;
      const follows = event.type !== 'gap' && first === last + 1;
      if (!follows) this.faults.push(`${answer.id}: ${event.type} ${first} after ${last}`);
      last = event.seq;
      const now = performance.now();
      if (at !== undefined) {
        this.#gapsMs.push(now - at);
        longest = Math.max(longest, now - at);
      }
      at = now;
    }
    const { verified } = await answer.result;
    if (verified) this.verified++;
    else this.faults.push(`${answer.id}: not verified`);
    this.#stallsMs.push(longest);
  }

  report() {
    const ms = (numbers) => [0.5, 0.99, 1].map((q) => `${Math.round(quantile(numbers, q))} ms`).join(' / ');
    return [
      `${this.started} answers, ${this.verified} verified, ${this.faults.length} lost, doubled or failed`,
      `${this.reconnects} times a reader went on elsewhere`,
      `between two events (p50 / p99 / longest): ${ms(this.#gapsMs)}`,
      `longest stall of an answer (p50 / p99 / longest): ${ms(this.#stallsMs)}`,
    ];
  }
}
