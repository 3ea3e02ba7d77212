// Finds connections that are open and dead.

// How long a connection has after a sleep to prove that it lives. Longer than a round trip; a living one that is
// silent for longer is merely opened again.
export const PROBE_MS = 5000;

/**
 * Watches one connection until stop(). Calls onQuiet at each third of `limitMs` without a touch, so that whoever can
 * asks the peer for a sign; onDead at its end; onLate when its own timers came so late that the page must have slept.
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

  // Only notes the time: a timer set and cleared for each token would cost more than the token.
  touch() {
    this.#touchedAt = this.#clock.now();
    this.#touches++;
  }

  /** The connection is dead unless something comes within PROBE_MS. */
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
      // What came during a sleep is read after this timer, so silence proves nothing yet.
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
