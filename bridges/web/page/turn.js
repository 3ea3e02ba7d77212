// One question and its response in the conversation.

import { GrowingText, PlainText } from './growing_text.js';
import { MarkdownText } from './markdown_text.js';
import { PartsView } from './parts_view.js';

export class Turn {
  #root;
  #raw;
  #formatted;
  #text;
  #parts;

  /** Appends the question and an empty response to `log`. */
  constructor(log, question) {
    const fragment = document.getElementById('turn-template').content.cloneNode(true);
    fragment.querySelector('.question').textContent = question;
    this.#root = fragment.querySelector('.reply');
    this.#raw = this.#part('.reply-raw');
    this.#formatted = this.#part('.reply-text');
    this.#text = new GrowingText([new PlainText(this.#raw), new MarkdownText(this.#formatted)], log);
    this.#parts = new PartsView(this.#part('.reply-reasoning'), this.#part('.reply-calls'));
    this.#part('[data-action="raw"]').addEventListener('click', () => this.showRaw(this.#raw.hidden));
    this.#part('[data-action="copy"]').addEventListener('click', () => this.#copy());
    log.append(fragment);
    log.scrollTop = log.scrollHeight;
  }

  /** Shows a response until it ends. Calls `onEvent` for each event. */
  async show(response, onEvent) {
    await this.#text.show(response, (event) => {
      if (event.type === 'delta' && event.choice === 0) this.#openOnce(event);
      if (event.type === 'gap') this.#parts.replace(event.snapshot?.choices[0]?.parts ?? []);
      onEvent(event);
    });
    for (const part of response.parts) this.#parts.note({ choice: 0, ...part });
  }

  // Events are shown in their order, while the response itself is already ahead of them.
  #openOnce(event) {
    const { part, kind, id, name } = event;
    if (kind === undefined) return;
    this.#parts.note({ choice: 0, index: part, kind, state: 'open', id, name });
    this.#parts.append(event);
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
