// A view of GrowingText that renders Markdown.

import { MarkdownBlocks } from './markdown_blocks.js';
import { nodesOf } from './markdown_nodes.js';

// After a paint, nothing is parsed for this many times its duration. Parsing thus takes a tenth of the time at most,
// whatever the text.
const REST_FACTOR = 9;

export class MarkdownText {
  #element;
  #blocks = new MarkdownBlocks();
  /** Nodes of the blocks that may still change. They are the last children of the element. */
  #open = [];
  #dirty = false;
  #restUntil = 0;

  constructor(element) {
    this.#element = element;
    element.replaceChildren();
  }

  append(text) {
    this.#blocks.append(text);
    this.#dirty = true;
  }

  replace(text) {
    this.#element.replaceChildren();
    this.#open = [];
    this.#blocks = new MarkdownBlocks();
    this.append(text);
  }

  paint(ended) {
    if (!this.#dirty && !ended) return true;
    const startedAt = performance.now();
    if (!ended && startedAt < this.#restUntil) return false;
    const { settled, open } = this.#blocks.update(ended);
    for (const node of this.#open) node.remove();
    this.#open = nodesOf(open);
    this.#element.append(...nodesOf(settled), ...this.#open);
    this.#dirty = false;
    const endedAt = performance.now();
    this.#restUntil = endedAt + (endedAt - startedAt) * REST_FACTOR;
    return true;
  }
}
