// One question and its response in the conversation.

import { GrowingText, PlainText } from './growing_text.js';
import { MarkdownText } from './markdown_text.js';

export class Turn {
  #root;
  #raw;
  #formatted;
  #text;

  /** Appends the question and an empty response to `log`. */
  constructor(log, question) {
    const fragment = document.getElementById('turn-template').content.cloneNode(true);
    fragment.querySelector('.question').textContent = question;
    this.#root = fragment.querySelector('.reply');
    this.#raw = this.#part('.reply-raw');
    this.#formatted = this.#part('.reply-text');
    this.#text = new GrowingText([new PlainText(this.#raw), new MarkdownText(this.#formatted)], log);
    this.#part('[data-action="raw"]').addEventListener('click', () => this.showRaw(this.#raw.hidden));
    this.#part('[data-action="copy"]').addEventListener('click', () => this.#copy());
    log.append(fragment);
    log.scrollTop = log.scrollHeight;
  }

  /** Shows a response until it ends. Calls `onEvent` for each event. */
  async show(response, onEvent) {
    await this.#text.show(response, onEvent);
  }

  /** Writes the line below the response. `state` is a status of the reader, or undefined. */
  describe(text, state) {
    const line = this.#part('.reply-meta');
    line.textContent = text;
    if (state) line.dataset.state = state;
  }

  /** Shows the text as it was sent, or else rendered. */
  showRaw(yes) {
    this.#raw.hidden = !yes;
    this.#formatted.hidden = yes;
    this.#part('[data-action="raw"]').setAttribute('aria-pressed', String(yes));
  }

  /** Offers to ask again until `ask` returns true. */
  offerAgain(ask) {
    const button = this.#part('[data-action="again"]');
    button.hidden = false;
    button.addEventListener('click', () => {
      if (ask()) button.remove();
    });
  }

  async #copy() {
    const button = this.#part('[data-action="copy"]');
    try {
      await navigator.clipboard.writeText(this.#raw.textContent);
      button.textContent = 'Copied';
    } catch {
      // Pages that came over plain HTTP from another host have no clipboard.
      this.showRaw(true);
      getSelection().selectAllChildren(this.#raw);
      button.textContent = 'Selected: copy with the keyboard';
    }
    setTimeout(() => (button.textContent = 'Copy'), 2000);
  }

  #part(selector) {
    return this.#root.querySelector(selector);
  }
}
