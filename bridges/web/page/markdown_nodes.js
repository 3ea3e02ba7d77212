// Makes DOM nodes from the tokens of Markdown. HTML is never parsed: all text goes into text nodes.

// Deeper ones are shown as they were written.
const MAX_DEPTH = 16;
const SCHEMES = new Set(['http:', 'https:', 'mailto:']);
const NAMED_ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0' };
const INLINE_TAGS = { strong: 'strong', em: 'em', del: 'del' };
const ALIGNMENTS = new Set(['left', 'center', 'right']);

const ENTITY = /&(?:#(\d{1,7})|#x([\da-f]{1,6})|(amp|lt|gt|quot|apos|nbsp));/gi;

function decodeEntities(text) {
  return text.replace(ENTITY, (_entity, decimal, hex, name) => {
    if (name) return NAMED_ENTITIES[name.toLowerCase()];
    const point = hex ? Number.parseInt(hex, 16) : Number(decimal);
    const surrogate = point >= 0xd800 && point <= 0xdfff;
    return point === 0 || surrogate || point > 0x10ffff ? '\ufffd' : String.fromCodePoint(point);
  });
}

/** The address to link to, or null if it is not absolute or its scheme is not one of the three allowed. */
export function safeHref(href) {
  try {
    const url = new URL(decodeEntities(href));
    return SCHEMES.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function element(tag, children = [], className = '') {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

const textNode = (text) => document.createTextNode(text);

function link({ href }, children, raw) {
  const address = safeHref(href);
  if (address === null) return [textNode(raw)];
  const anchor = element('a', children);
  anchor.href = address;
  anchor.target = '_blank';
  anchor.rel = 'noopener noreferrer';
  return [anchor];
}

function code({ text, lang = '' }) {
  const pre = element('pre', [element('code', [textNode(text)])]);
  // Makes long lines reachable by keyboard.
  pre.tabIndex = 0;
  const [language] = lang.slice(0, 40).split(/\s/);
  if (language) pre.dataset.language = language;
  return pre;
}

function cell(tag, { tokens, align }, depth) {
  return element(tag, nodesOf(tokens, depth), ALIGNMENTS.has(align) ? `align-${align}` : '');
}

function table({ header, rows }, depth) {
  const head = element('thead', [element('tr', header.map((each) => cell('th', each, depth)))]);
  const body = element('tbody', rows.map((row) => element('tr', row.map((each) => cell('td', each, depth)))));
  const scroller = element('div', [element('table', [head, body])], 'table');
  scroller.tabIndex = 0;
  return scroller;
}

function list({ ordered, start, items }, depth) {
  const made = element(ordered ? 'ol' : 'ul', items.map(({ tokens }) => element('li', nodesOf(tokens, depth))));
  if (ordered && start !== 1 && Number.isSafeInteger(start)) made.start = start;
  return made;
}

/** Nodes of one token of marked. An unknown type becomes its source text. */
function nodesOfToken(token, depth) {
  const { type, raw, text, tokens } = token;
  if (depth > MAX_DEPTH) return [textNode(raw)];
  const children = () => nodesOf(tokens, depth + 1);
  switch (type) {
    case 'space': return [];
    case 'heading': return [element(`h${Math.min(token.depth + 2, 6)}`, children())];
    case 'paragraph': return [element('p', children())];
    case 'blockquote': return [element('blockquote', children())];
    case 'list': return [list(token, depth + 1)];
    case 'table': return [table(token, depth + 1)];
    case 'code': return [code(token)];
    case 'hr': return [element('hr')];
    case 'plain': return [element('p', [textNode(raw)], 'plain')];
    case 'strong':
    case 'em':
    case 'del': return [element(INLINE_TAGS[type], children())];
    case 'codespan': return [element('code', [textNode(text)])];
    case 'br': return [element('br')];
    case 'link': return link(token, children(), raw);
    // An image would be loaded from any address that the text names.
    case 'image': return link(token, [textNode(text || token.href)], raw);
    case 'checkbox': return [textNode(token.checked ? '☑ ' : '☐ ')];
    case 'text': return tokens ? children() : [textNode(decodeEntities(text))];
    case 'escape': return [textNode(text)];
    default: return [textNode(raw)];
  }
}

/** DOM nodes of tokens of marked. */
export function nodesOf(tokens, depth = 0) {
  return tokens.flatMap((token) => nodesOfToken(token, depth));
}
