// When to try again.

import { pause } from './clock.js';
import { broken, GENERATION_LOST, RunnelError } from './errors.js';

// Waits made on purpose: they need no delay and count as no failure.
const ON_PURPOSE = new Set(['dropped', 'switched', 'stored']);
// The server is well and says where to go on: no delay, unless it says so twice with nothing between.
const AT_ONCE = new Set(['goaway', 'already_ended']);
// A captive portal or a proxy's own page goes away; a wrong address answers so for ever.
const WRONG_TYPES = 3;
// Browsers have been known to say offline of a machine whose server is near, so they are not believed for longer.
const OFFLINE_MS = 30_000;
// Nothing runs in the back/forward cache; this only is no wait without end.
const STORED_MS = 86_400_000;

/** Counts the failures of one reader and waits between its tries. */
export class Retry {
  #options;
  #surroundings;
  #failures = 0;
  #wrongTypes = 0;
  #nap = null;
  #interrupted = false;
  #hurried = false;
  #asked = false;
  /** The server's `retry`, in milliseconds; takes the place of the first bound of the backoff. */
  retryMs = undefined;
  /** Called with the milliseconds until the next try and with why. */
  onWait = () => {};

  constructor(options, surroundings) {
    this.#options = options;
    this.#surroundings = surroundings;
  }

  /** Notes why a connection ended; `progress` if it brought anything. Returns the error if it is final, else null. */
  note(error, progress) {
    this.#wrongTypes = error.code === 'bad_content_type' ? this.#wrongTypes + 1 : 0;
    if (!error.retryable || error.code === GENERATION_LOST) return error;
    if (progress) this.#failures = 0;
    const { code, message, status } = error;
    if (this.#wrongTypes >= WRONG_TYPES) return new RunnelError(code, message, { status });
    if (ON_PURPOSE.has(code) || this.#failures < this.#options.maxRetries) return null;
    return broken('gave_up', `gave up after ${this.#failures} retries: ${message}`, { cause: error, status });
  }

  /** Waits as `error` wants it. A wake() ends all of it but what the server asked for, an interrupt() all. */
  async wait(error) {
    this.#interrupted = this.#hurried = false;
    const counts = !ON_PURPOSE.has(error.code);
    const atOnce = !counts || (AT_ONCE.has(error.code) && this.#failures === 0);
    if (!atOnce) await this.#sleep(error);
    const { offline, stored } = this.#surroundings;
    if ((counts && offline) || stored) await this.#sleepUntilWoken(stored ? STORED_MS : OFFLINE_MS, error);
    // Without a network it is not the server that fails.
    else if (counts) this.#failures++;
  }

  /** Full jitter above what the server asked for. */
  delay(failures, { retryAfterMs = 0 }) {
    const { baseMs, capMs, maxRetryAfterMs, random } = this.#options;
    const bound = Math.min(capMs, Math.max(baseMs, this.retryMs ?? 0) * 2 ** Math.min(failures, 20));
    return Math.min(retryAfterMs, maxRetryAfterMs) + random() * bound;
  }

  /** The network is back, or the page. */
  wake() {
    this.#hurried = true;
    if (!this.#asked) this.#nap?.abort();
  }

  /** The caller wants something else. */
  interrupt() {
    this.#interrupted = true;
    this.#nap?.abort();
  }

  async #sleep(error) {
    const { clock, maxRetryAfterMs } = this.#options;
    const ms = this.delay(this.#failures, error);
    const earliest = clock.now() + Math.min(error.retryAfterMs ?? 0, maxRetryAfterMs);
    this.onWait(ms, error);
    await this.#pause(ms);
    if (!this.#hurried || earliest <= clock.now()) return;
    // What the server asked for stands: readers without number come back with the same network.
    this.#asked = true;
    await this.#pause(earliest - clock.now());
    this.#asked = false;
  }

  async #sleepUntilWoken(ms, error) {
    if (this.#hurried) return;
    this.onWait(ms, error);
    await this.#pause(ms);
  }

  async #pause(ms) {
    if (this.#interrupted) return;
    this.#nap = new AbortController();
    await pause(this.#options.clock, ms, this.#nap.signal);
    this.#nap = null;
  }
}
