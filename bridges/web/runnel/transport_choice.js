// Over which transport to read, and when to offer or take another.

import { wayAround } from './transports.js';

// Connections in a row that were opened and stayed without a byte; one may be a network that died just then.
const SILENT_ATTEMPTS = 2;
// A transport that was taken unasked is left again if it does not even open.
const UNOPENED_ATTEMPTS = 2;

export class TransportChoice {
  #options;
  #onNotice;
  #unasked = false;
  #silent = 0;
  #unopened = 0;
  #told = new Set();
  /** The one in use. */
  name;

  /** `onNotice` is called with a `buffered` notice, at most once for each transport. */
  constructor(options, onNotice) {
    this.#options = options;
    this.#onNotice = onNotice;
    this.name = options.transport;
  }

  /** Takes another one. `unasked` if it was not the caller's wish. */
  set(name, unasked) {
    this.name = name;
    this.#unasked = unasked;
    this.#silent = this.#unopened = 0;
  }

  /** What is read over it is held back, for `heldMs` if that is known. Returns what to switch to, or null. */
  held(cause, heldMs) {
    const transport = this.name;
    if (this.#told.has(transport)) return null;
    this.#told.add(transport);
    const offer = wayAround(transport, this.#options);
    this.#onNotice({ type: 'buffered', transport, offer, cause, heldMs });
    // The notice's reader may have switched already.
    return this.#options.onBuffered === 'switch' && this.name === transport ? offer : null;
  }

  /** Looks for what only several connections show. Returns what to switch to, or null. */
  judge(attempt, { code }) {
    this.#silent = code === 'idle_timeout' && attempt.silent ? this.#silent + 1 : 0;
    this.#unopened = attempt.opened || code === 'switched' ? 0 : this.#unopened + 1;
    if (this.#silent >= SILENT_ATTEMPTS) return this.held('silence', null);
    return this.#unasked && this.#unopened >= UNOPENED_ATTEMPTS ? wayAround(this.name, this.#options) : null;
  }
}
