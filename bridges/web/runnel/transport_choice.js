// Which transport to use, and when to offer or take another one.

import { wayAround } from './transports.js';

// Connections in a row that were opened and received no byte. A single one may be due to a network that failed.
const SILENT_ATTEMPTS = 2;
// A transport that the library has chosen is left again if it does not even open.
const UNOPENED_ATTEMPTS = 2;

export class TransportChoice {
  #options;
  #onNotice;
  #automatic = false;
  #silent = 0;
  #unopened = 0;
  #reported = new Set();
  /** The transport in use. */
  name;

  /** `onNotice` is called with a `buffered` notice, at most once for each transport. */
  constructor(options, onNotice) {
    this.#options = options;
    this.#onNotice = onNotice;
    this.name = options.transport;
  }

  /** Takes another one. `automatic` says that the library chose it, not the caller. */
  set(name, automatic) {
    this.name = name;
    this.#automatic = automatic;
    this.#silent = this.#unopened = 0;
  }

  /** Reports that events are held back, for `heldMs` (null: unknown). Returns the transport to switch to, or null. */
  held(cause, heldMs) {
    const transport = this.name;
    if (this.#reported.has(transport)) return null;
    this.#reported.add(transport);
    const offer = wayAround(transport, this.#options);
    this.#onNotice({ type: 'buffered', transport, offer, cause, heldMs });
    // The handler of the notice may have switched already.
    return this.#options.onBuffered === 'switch' && this.name === transport ? offer : null;
  }

  /** Judges the transport by its last connections. Returns the transport to switch to, or null. */
  judge(attempt, { code }) {
    this.#silent = code === 'idle_timeout' && attempt.silent ? this.#silent + 1 : 0;
    this.#unopened = attempt.opened || code === 'switched' ? 0 : this.#unopened + 1;
    if (this.#silent >= SILENT_ATTEMPTS) return this.held('silence', null);
    return this.#automatic && this.#unopened >= UNOPENED_ATTEMPTS ? wayAround(this.name, this.#options) : null;
  }
}
