// As much of a document as the page's modules for text use, for tests that run without a browser.

class FakeNode {
  parent = null;

  remove() {
    const siblings = this.parent?.childNodes;
    siblings?.splice(siblings.indexOf(this), 1);
    this.parent = null;
  }
}

class FakeText extends FakeNode {
  constructor(data = '') {
    super();
    this.data = data;
  }

  get textContent() {
    return this.data;
  }

  appendData(text) {
    this.data += text;
  }

  toString() {
    return JSON.stringify(this.data);
  }
}

class FakeElement extends FakeNode {
  childNodes = [];
  dataset = {};
  className = '';

  constructor(tag) {
    super();
    this.tag = tag;
  }

  append(...nodes) {
    for (const node of nodes) {
      node.remove();
      node.parent = this;
      this.childNodes.push(node);
    }
  }

  replaceChildren(...nodes) {
    for (const child of [...this.childNodes]) child.remove();
    this.append(...nodes);
  }

  get textContent() {
    return this.childNodes.map((child) => child.textContent).join('');
  }

  set textContent(text) {
    this.replaceChildren(...(text === '' ? [] : [new FakeText(text)]));
  }

  /** Every element below this one, and itself. */
  *elements() {
    yield this;
    for (const child of this.childNodes) if (child instanceof FakeElement) yield* child.elements();
  }

  /** `tag.class href=…("text" …)`, for comparisons in tests. */
  toString() {
    const own = { href: this.href, start: this.start, lang: this.dataset.language };
    const present = Object.entries(own).filter(([, value]) => value !== undefined);
    const attributes = present.map(([name, value]) => ` ${name}=${value}`);
    const name = `${this.tag}${this.className ? `.${this.className}` : ''}${attributes.join('')}`;
    return this.childNodes.length > 0 ? `${name}(${this.childNodes.join(' ')})` : name;
  }
}

export const fakeDocument = {
  createElement: (tag) => new FakeElement(tag),
  createTextNode: (text) => new FakeText(text),
};
