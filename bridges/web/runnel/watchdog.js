// Detects connections that are open but dead.

// How long a connection has to show activity after the machine slept. Longer than a round trip; a live connection that
// is silent for longer is merely opened again.
export const PROBE_MS = 5000;

/**
 * Watches one connection until stop(). Calls onQuiet at each third of `limitMs` without a touch, so that the connection
 * can ping its peer; onDead when `limitMs` is over; onLate when timers fired so late that the page must have slept.
 */
export class Watchdog {
  #clock;
  #limitMs;
  #handlers;
  #touchedAt;
  #touches = 0;
  #cancelTimer = () => {};
  #cancelProbe = () => {};

  constructor(clock, limitMs, handlers) {
    this.#clock = clock;
    this.#limitMs = limitMs;
    this.#handlers = handlers;
    this.touch();
    this.#arm();
  }

  /** Notes activity. Only stores the time: setting a timer for each token would cost more than the token. */
  touch() {
    this.#touchedAt = this.#clock.now();
    this.#touches++;
  }

  /** Declares the connection dead unless it is touched within PROBE_MS. */
  probe() {
    const before = this.#touches;
    this.#cancelProbe();
    this.#cancelProbe = this.#clock.setTimer(() => {
      if (this.#touches === before) this.#handlers.onDead();
    }, PROBE_MS);
    this.#handlers.onQuiet();
  }

  stop() {
    this.#cancelTimer();
    this.#cancelProbe();
  }

  #wall() {
    return this.#clock.wall?.() ?? this.#clock.now();
  }

  #arm() {
    const armed = { at: this.#clock.now(), wall: this.#wall() };
    const periodMs = this.#limitMs / 3;
    this.#cancelTimer = this.#clock.setTimer(() => {
      const tookMs = Math.max(this.#clock.now() - armed.at, this.#wall() - armed.wall);
      // Bytes that arrived during the sleep are read after this timer, so silence does not prove anything yet.
      if (tookMs > 2 * periodMs) {
        this.#handlers.onLate();
        this.probe();
      } else {
        const quietMs = this.#clock.now() - this.#touchedAt;
        if (quietMs >= this.#limitMs) return this.#handlers.onDead();
        if (quietMs >= periodMs) this.#handlers.onQuiet();
      }
      return this.#arm();
    }, periodMs);
  }
}
