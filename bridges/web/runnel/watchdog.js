// Finds connections that are open and dead.

/** Calls onQuiet at each third of `limitMs` without a touch, and onDead at its end. */
export class Watchdog {
  #clock;
  #limitMs;
  #handlers;
  #touchedAt;
  #cancelTimer;

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
  }

  stop() {
    this.#cancelTimer();
  }

  #arm() {
    this.#cancelTimer = this.#clock.setTimer(() => {
      const quietMs = this.#clock.now() - this.#touchedAt;
      if (quietMs >= this.#limitMs) return this.#handlers.onDead();
      if (quietMs >= this.#limitMs / 3) this.#handlers.onQuiet();
      this.#arm();
    }, this.#limitMs / 3);
  }
}
