// The parts of a response that are not text: reasoning folded, tool calls as cards, refusals as notes.

import { PlainText } from './growing_text.js';

const STATES = { open: 'being written', complete: 'complete', incomplete: 'incomplete: do not execute' };
const TITLES = { reasoning: 'Reasoning', tool_call: 'Tool call', refusal: 'Refusal' };

/** Shows each part in an element of its own: reasoning in `before`, everything else in `after`. */
export class PartsView {
  #before;
  #after;
  #shown = new Map();

  constructor(before, after) {
    this.#before = before;
    this.#after = after;
  }

  /** Shows a part of the first choice, which is open or has ended. `content` is needed only once it has ended. */
  note({ choice, index, kind, state, id, name, content }) {
    if (choice !== 0 || kind === 'text') return;
    const shown = this.#shown.get(index) ?? this.#open(index, kind);
    if (kind === 'tool_call') {
      if (name !== undefined) shown.title.textContent = `${name}()`;
      shown.state.textContent = STATES[state];
    }
    if (id) shown.element.title = id;
    shown.element.dataset.state = state;
    // What has arrived since is in the events; at the end, all of it is here.
    if (state !== 'open') shown.text.replace(content);
  }

  /** Appends the output of an event. */
  append({ part, kind, content }) {
    if (kind !== undefined) this.#shown.get(part)?.text.append(content);
  }

  /** A gap replaces all parts. */
  replace(parts) {
    for (const { element } of this.#shown.values()) element.remove();
    this.#shown.clear();
    for (const part of parts) {
      this.note({ ...part, choice: 0, state: 'open' });
      this.#shown.get(part.index)?.text.replace(part.content);
    }
  }

  #open(index, kind) {
    const folded = kind === 'reasoning';
    const element = document.createElement(folded ? 'details' : 'section');
    const title = document.createElement(folded ? 'summary' : 'h4');
    const state = document.createElement('span');
    const body = document.createElement('div');
    element.className = 'part';
    element.dataset.kind = kind;
    title.textContent = TITLES[kind] ?? kind;
    state.className = 'part-state';
    body.className = 'part-body';
    element.append(title, state, body);
    (folded ? this.#before : this.#after).append(element);
    const shown = { element, title, state, text: new PlainText(body) };
    this.#shown.set(index, shown);
    return shown;
  }
}
