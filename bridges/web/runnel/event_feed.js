// The events that were applied, for any number of iterators.

export class EventFeed {
  // Kept, so that each iterator can hold a cursor into them.
  #events = [];
  #ended = false;
  #error = null;
  #wake;
  #news;

  constructor() {
    this.#renew();
  }

  push(event) {
    this.#events.push(event);
    this.#wakeAll();
  }

  /** After the last event, iterators end, or throw `error`. */
  end(error = null) {
    this.#ended = true;
    this.#error = error;
    this.#wakeAll();
  }

  async *iterate() {
    for (let next = 0; ; ) {
      while (next < this.#events.length) yield this.#events[next++];
      if (this.#ended) break;
      await this.#news;
    }
    if (this.#error) throw this.#error;
  }

  #renew() {
    this.#news = new Promise((resolve) => (this.#wake = resolve));
  }

  #wakeAll() {
    this.#wake();
    this.#renew();
  }
}
