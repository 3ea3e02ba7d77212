// text/event-stream, from bytes to messages.
import { broken } from './errors.js';

// A line without end must not fill the memory. The largest honest one is a snapshot of a whole answer.
const MAX_LINE_CHARS = 16 * 1024 * 1024;

/**
 * Incremental parser of text/event-stream, after the WHATWG algorithm. Chunks may be split anywhere. `onComment` is
 * called with the text of each comment, which is what follows its colon.
 */
export class SseParser {
  // Strips one BOM and keeps a character that a chunk boundary has cut.
  #decoder = new TextDecoder('utf-8');
  #rest = '';
  #skipLf = false;
  #data = '';
  #type = '';
  #id = '';
  #onComment;
  /** As of the last blank line. */
  lastEventId = '';
  /** The server's last `retry`, in milliseconds. */
  retryMs = undefined;

  constructor(onComment = () => {}) {
    this.#onComment = onComment;
  }

  /** Returns the messages that `bytes` completes. What is not ended by a blank line is never returned. */
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
    if (this.#rest.length + this.#data.length > MAX_LINE_CHARS) throw broken('bad_event', 'event without end');
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
