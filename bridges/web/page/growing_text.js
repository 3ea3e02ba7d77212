// Text that grows at its end.

/** Shows text as it is, in one text node. */
export class PlainText {
  #node = document.createTextNode('');

  constructor(element) {
    element.replaceChildren(this.#node);
  }

  append(text) {
    this.#node.appendData(text);
  }

  replace(text) {
    this.#node.data = text;
  }

  paint() {
    return true;
  }
}

/**
 * Paints once per frame, however many tokens a frame brings. Each of `views` has append(text), replace(text) and
 * paint(ended), which returns false if it has postponed work to a later frame.
 */
export class GrowingText {
  #views;
  #scroller;
  #pending = '';
  #frame = 0;

  constructor(views, scroller) {
    this.#views = views;
    this.#scroller = scroller;
  }

  append(text) {
    this.#pending += text;
    this.#requestFrame();
  }

  replace(text) {
    this.#pending = '';
    for (const view of this.#views) view.replace(text);
    this.#requestFrame();
  }

  /** Paints now. With `ended`, nothing is postponed. */
  flush(ended = false) {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    // A reader who has scrolled up must not be pulled down.
    const following = scrollHeight - scrollTop - clientHeight < 40;
    const pending = this.#pending;
    this.#pending = '';
    let complete = true;
    for (const view of this.#views) {
      if (pending) view.append(pending);
      complete = view.paint(ended) && complete;
    }
    if (!complete) this.#requestFrame();
    if (following) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** Shows a response until it ends, for whatever reason. Calls `onEvent` for each event. */
  async show(response, onEvent = () => {}) {
    try {
      for await (const event of response) {
        onEvent(event);
        if (event.type === 'delta') this.append(event.text);
        // Not response.text(), which is already ahead of this event.
        else if (event.type === 'gap') this.replace(event.snapshot?.choices[0]?.text ?? '');
      }
    } catch {
      // The caller learns the reason from response.result.
    }
    this.flush(true);
  }

  #requestFrame() {
    this.#frame ||= requestAnimationFrame(() => this.flush());
  }
}
