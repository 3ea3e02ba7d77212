/** Items that have arrived and were not taken yet, then the error that ends them. One consumer. */
export class Inbox {
  #items = [];
  #error;
  #wake;

  push(item) {
    this.#items.push(item);
    this.#wake?.();
  }

  fail(error) {
    this.#error ??= error;
    this.#wake?.();
  }

  async next() {
    while (this.#items.length === 0) {
      if (this.#error !== undefined) throw this.#error;
      await new Promise((resolve) => (this.#wake = resolve));
      this.#wake = undefined;
    }
    return this.#items.shift();
  }
}
