// The events that a reader has applied, for any number of iterators.

export class EventFeed {
  // All are kept: each iterator holds a position in them.
  #events = [];
  #ended = false;
  #error = null;
  #wake;
  #changed;

  constructor() {
    this.#renew();
  }

  push(event) {
    this.#events.push(event);
    this.#wakeAll();
  }

  /** After the last event, iterators end, or throw `error` if there is one. */
  end(error = null) {
    this.#ended = true;
    this.#error = error;
    this.#wakeAll();
  }

  async *iterate() {
    for (let next = 0; ; ) {
      while (next < this.#events.length) yield this.#events[next++];
      if (this.#ended) break;
      await this.#changed;
    }
    if (this.#error) throw this.#error;
  }

  #renew() {
    this.#changed = new Promise((resolve) => (this.#wake = resolve));
  }

  #wakeAll() {
    this.#wake();
    this.#renew();
  }
}
