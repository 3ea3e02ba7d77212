// Parses text/event-stream.
import { broken } from './errors.js';

// A line that never ends must not fill the memory. The largest legitimate line is a snapshot of a whole text.
const MAX_LINE_CHARS = 16 * 1024 * 1024;

/** Incremental parser of text/event-stream that follows the WHATWG algorithm. Chunks may be split anywhere. */
export class SseParser {
  // Strips one byte order mark, and holds back a character that is split between two chunks.
  #decoder = new TextDecoder('utf-8');
  #rest = '';
  #skipLf = false;
  #data = '';
  #type = '';
  #id = '';
  #onComment;
  /** The last `id` before the last blank line. */
  lastEventId = '';
  /**
   * The server's last `retry`, in milliseconds.
   * @type {number | undefined}
   */
  retryMs = undefined;

  /** @param {(comment: string) => void} [onComment] called with the text after the colon of each comment */
  constructor(onComment = () => {}) {
    this.#onComment = onComment;
  }

  /**
   * Returns the messages that `bytes` completes. A message ends with its blank line, never with the stream.
   *
   * @param {Uint8Array} bytes
   * @returns {{ type: string, data: string, lastEventId: string }[]}
   */
  push(bytes) {
    const text = this.#decoder.decode(bytes, { stream: true });
    const messages = [];
    let start = 0;
    if (this.#skipLf && text.length > 0) {
      if (text[0] === '\n') start = 1;
      this.#skipLf = false;
    }
    const lineEnd = /[\r\n]/g;
    for (;;) {
      lineEnd.lastIndex = start;
      const end = lineEnd.exec(text)?.index;
      if (end === undefined) break;
      const line = this.#rest + text.slice(start, end);
      this.#rest = '';
      start = end + 1;
      if (text[end] === '\r') {
        if (start === text.length) this.#skipLf = true;
        else if (text[start] === '\n') start++;
      }
      this.#line(line, messages);
    }
    this.#rest += text.slice(start);
    if (this.#rest.length + this.#data.length > MAX_LINE_CHARS) throw broken('bad_event', 'an event is too long');
    return messages;
  }

  #line(line, messages) {
    if (line === '') return this.#dispatch(messages);
    const colon = line.indexOf(':');
    if (colon === 0) return this.#onComment(line.slice(1));
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1);
    if (value[0] === ' ') value = value.slice(1);
    if (field === 'data') this.#data += `${value}\n`;
    else if (field === 'event') this.#type = value;
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    else if (field === 'retry' && /^[0-9]+$/.test(value)) this.retryMs = Number(value);
    return undefined;
  }

  #dispatch(messages) {
    this.lastEventId = this.#id;
    if (this.#data !== '') {
      messages.push({ type: this.#type || 'message', data: this.#data.slice(0, -1), lastEventId: this.#id });
    }
    this.#data = '';
    this.#type = '';
  }
}
