// Text that grows at its end.

/** Painted once a frame, however many tokens a frame brings. */
export class GrowingText {
  #element;
  #scroller;
  #node = document.createTextNode('');
  #pending = '';
  #frame = 0;

  constructor(element, scroller = element) {
    this.#element = element;
    this.#scroller = scroller;
    element.replaceChildren(this.#node);
  }

  append(text) {
    this.#pending += text;
    this.#frame ||= requestAnimationFrame(() => this.flush());
  }

  replace(text) {
    this.#pending = '';
    this.#node.data = text;
  }

  flush() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (this.#pending === '') return;
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    // Whoever has scrolled up to read must not be pulled down.
    const following = scrollHeight - scrollTop - clientHeight < 40;
    this.#node.appendData(this.#pending);
    this.#pending = '';
    if (following) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** Shows all of an answer as it comes; resolves when it ended, however it ended. */
  async show(answer) {
    try {
      for await (const event of answer) {
        if (event.type === 'delta') this.append(event.text);
        // Not answer.text(): that is already ahead of this event.
        else if (event.type === 'gap') this.replace(event.snapshot?.choices[0]?.text ?? '');
      }
    } catch {
      // Its owner tells why, from answer.result.
    }
    this.flush();
  }
}
