// Text that grows at its end.

// A browser lays a block out again whenever text is appended to it, so a longer block is left at its last line end.
const MAX_BLOCK_CHARS = 1000;

/** Shows text as it is. The element must preserve white space. */
export class PlainText {
  #element;
  #node;

  constructor(element) {
    this.#element = element;
    this.replace('');
  }

  append(text) {
    this.#node.appendData(text);
    const { data } = this.#node;
    const lineEnd = data.lastIndexOf('\n') + 1;
    if (data.length < MAX_BLOCK_CHARS || lineEnd === 0) return;
    this.#node.data = data.slice(0, lineEnd);
    this.#beginBlock(data.slice(lineEnd));
  }

  replace(text) {
    this.#element.replaceChildren();
    this.#beginBlock('');
    this.append(text);
  }

  paint() {
    return true;
  }

  #beginBlock(text) {
    this.#node = document.createTextNode(text);
    const block = document.createElement('div');
    block.append(this.#node);
    this.#element.append(block);
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
    // Do not scroll if the user has scrolled up to read.
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
