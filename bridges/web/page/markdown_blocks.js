// Splits growing Markdown into blocks that are settled and the last ones, which may still change.

import { Lexer, Tokenizer } from '../vendor/marked.js';

// A block is parsed again whenever it grows, so its length bounds that work. A longer one is cut in two.
const MAX_BLOCK_CHARS = 8192;
// Each marker of a quote or a list nests the parser.
const MAX_MARKERS_IN_LINE = 16;
const MARKER = /[ \t]*(?:>|[-*+](?=[ \t])|\d{1,9}[.)](?=[ \t]))/y;
// The parser fills each row up to the width of the header.
const MAX_TABLE_CELLS = 4096;
const LINE_END = /\r\n?/g;

/** Treats HTML as text. Also reference definitions, because a settled block would not see a later one. */
class SafeTokenizer extends Tokenizer {
  html() {}

  tag() {}

  def() {}

  table(src) {
    const columns = src.slice(0, src.indexOf('\n')).split('|').length;
    return columns * src.split('\n').length <= MAX_TABLE_CELLS ? super.table(src) : undefined;
  }
}

function isTooDeep(line) {
  MARKER.lastIndex = 0;
  let markers = 0;
  while (MARKER.test(line)) markers++;
  return markers > MAX_MARKERS_IN_LINE;
}

const plain = (raw) => ({ type: 'plain', raw });

function lex(text) {
  if (text === '') return [];
  try {
    return new Lexer({ gfm: true, tokenizer: new SafeTokenizer() }).lex(text);
  } catch {
    return [plain(text)];
  }
}

/** Returns tokens of marked, and tokens of type `plain` for text that is too expensive to parse. Never throws. */
function parse(text) {
  const tokens = [];
  let from = 0;
  let at = 0;
  for (const line of text.split('\n')) {
    const end = Math.min(text.length, at + line.length + 1);
    if (isTooDeep(line)) {
      tokens.push(...lex(text.slice(from, at)), plain(text.slice(at, end)));
      from = end;
    }
    at = end;
  }
  return [...tokens, ...lex(text.slice(from))];
}

const isBlank = ({ type }) => type === 'space';

/**
 * How many tokens at the beginning are settled. A block is settled when the first line of the next block is complete:
 * `1. a`, an empty line and `2` are a list and a paragraph, but if `. b` follows, they are one list.
 */
function countSettled(tokens, isLong) {
  const last = tokens.findLastIndex((token) => !isBlank(token));
  if (last <= 0) return 0;
  const rest = tokens.slice(last).map(({ raw }) => raw).join('');
  if (isLong || /\S[^\n]*\n/.test(rest)) return last;
  return Math.max(0, tokens.findLastIndex((token, index) => index < last && !isBlank(token)));
}

/** Where to cut a block that is too long, and the prefix that makes its second part a block of the same kind. */
function cutBlock(text, type) {
  const head = text.slice(0, MAX_BLOCK_CHARS);
  const itemEnd = type === 'list' ? /^[\s\S]*\n(?=\S)/.exec(head)?.[0].length : undefined;
  const opening = { code: /^ {0,3}(?:```|~~~)/.test(head) ? 1 : 0, table: 2 }[type] ?? 0;
  const prefix = head.split('\n', opening).map((line) => `${line}\n`).join('');
  const cut = itemEnd ?? head.lastIndexOf('\n') + 1;
  if (cut > prefix.length) return { cut, prefix };
  const halfCharacter = Number(/[\uD800-\uDBFF]$/.test(head));
  return { cut: MAX_BLOCK_CHARS - halfCharacter, prefix: prefix.length < head.length / 2 ? prefix : '' };
}

/** Markdown that grows at its end. Memory and work per call are bounded by the length of the last blocks. */
export class MarkdownBlocks {
  #tail = '';

  append(text) {
    this.#tail += text;
  }

  /**
   * Parses the text that is not settled. `settled` are tokens that will not change, each returned once and in order;
   * `open` are those after them, which the next call replaces. All are settled if the text has `ended`.
   */
  update(ended = false) {
    const settled = [];
    // A carriage return at the end may be half of a line's end.
    const held = !ended && this.#tail.endsWith('\r') ? '\r' : '';
    let text = this.#tail.slice(0, this.#tail.length - held.length).replace(LINE_END, '\n');
    for (;;) {
      const long = text.length > MAX_BLOCK_CHARS;
      const tokens = parse(long ? text.slice(0, MAX_BLOCK_CHARS) : text);
      const count = countSettled(tokens, long);
      const raw = tokens.slice(0, count).map((token) => token.raw).join('');
      if (count > 0 && text.startsWith(raw)) {
        settled.push(...tokens.slice(0, count));
        text = text.slice(raw.length);
      } else if (long) {
        const { cut, prefix } = cutBlock(text, tokens.find((token) => !isBlank(token))?.type);
        settled.push(...parse(text.slice(0, cut)));
        text = prefix + text.slice(cut);
      } else {
        this.#tail = ended ? '' : text + held;
        return ended ? { settled: [...settled, ...tokens], open: [] } : { settled, open: tokens };
      }
    }
  }
}
