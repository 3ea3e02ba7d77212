// When to reconnect.

import { pause } from './clock.js';
import { broken, GENERATION_LOST, RunnelError } from './errors.js';

// Interruptions by the caller or the browser: they need no delay and do not count as failures.
const ON_PURPOSE = new Set(['dropped', 'switched', 'stored']);
// The server works and expects the reader back: no delay, unless this happens twice without progress.
const IMMEDIATE = new Set(['goaway', 'already_ended']);
// The page of a captive portal or of a proxy disappears in time; that of a wrong address does not.
const WRONG_TYPES = 3;
// Some browsers report `offline` although the server can be reached, so the report is trusted for this long only.
const OFFLINE_MS = 30_000;
// Nothing runs in the back/forward cache. This only keeps the wait from being unlimited.
const STORED_MS = 86_400_000;

/** Counts the failures of one reader and waits between its attempts. */
export class Retry {
  #options;
  #surroundings;
  #failures = 0;
  #wrongTypes = 0;
  /** @type {AbortController | null} */
  #nap = null;
  #interrupted = false;
  #woken = false;
  #obeying = false;
  /** The server's `retry`, in milliseconds: a lower limit for the first bound of the backoff. */
  retryMs = undefined;
  /** Called with the milliseconds until the next attempt and the error that caused the wait. */
  onWait = (_ms, _error) => {};

  constructor(options, surroundings) {
    this.#options = options;
    this.#surroundings = surroundings;
  }

  /** Notes why a connection ended, and whether it made progress. Returns the error if it is final, else null. */
  note(error, progress) {
    this.#wrongTypes = error.code === 'bad_content_type' ? this.#wrongTypes + 1 : 0;
    if (!error.retryable || error.code === GENERATION_LOST) return error;
    if (progress) this.#failures = 0;
    const { code, message, status } = error;
    if (this.#wrongTypes >= WRONG_TYPES) return new RunnelError(code, message, { status });
    if (ON_PURPOSE.has(code) || this.#failures < this.#options.maxRetries) return null;
    return broken('gave_up', `gave up after ${this.#failures} retries: ${message}`, { cause: error, status });
  }

  /**
   * Waits as long as `error` requires. wake() ends the wait, except for the part that the server asked for; interrupt()
   * ends all of it.
   */
  async wait(error) {
    this.#interrupted = this.#woken = false;
    const counts = !ON_PURPOSE.has(error.code);
    const immediate = !counts || (IMMEDIATE.has(error.code) && this.#failures === 0);
    if (!immediate) await this.#sleep(error);
    const { offline, stored } = this.#surroundings;
    if ((counts && offline) || stored) await this.#sleepUntilWoken(stored ? STORED_MS : OFFLINE_MS, error);
    // Without a network, it is not the server that fails.
    else if (counts) this.#failures++;
  }

  /** The delay that the server asked for, plus an exponential backoff with full jitter. */
  delay(failures, { retryAfterMs = 0 }) {
    const { baseMs, capMs, maxRetryAfterMs, random } = this.#options;
    const bound = Math.min(capMs, Math.max(baseMs, this.retryMs ?? 0) * 2 ** Math.min(failures, 20));
    return Math.min(retryAfterMs, maxRetryAfterMs) + random() * bound;
  }

  /** The network or the page is back. */
  wake() {
    this.#woken = true;
    if (!this.#obeying) this.#nap?.abort();
  }

  /** The caller has dropped the connection, switched the transport or ended the reader. */
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
    if (!this.#woken || earliest <= clock.now()) return;
    // The server's Retry-After still applies: many readers may come back when one network does.
    this.#obeying = true;
    await this.#pause(earliest - clock.now());
    this.#obeying = false;
  }

  async #sleepUntilWoken(ms, error) {
    if (this.#woken) return;
    this.onWait(ms, error);
    await this.#pause(ms);
  }

  async #pause(ms) {
    if (this.#interrupted) return;
    const nap = (this.#nap = new AbortController());
    await pause(this.#options.clock, ms, nap.signal);
    this.#nap = null;
  }
}
