// The output of one choice: its text, its parts and their digests.
import { crc32, hex8, utf8 } from './crc32.js';
import { broken } from './errors.js';

const MAX_PARTS = 1024;
// A call of a choice that ended otherwise was cut.
const WHOLE_ENDS = new Set(['stop', 'tool_calls', 'length']);

const malformed = (what) => broken('bad_event', `malformed ${what}`);

/** Bytes and their running CRC-32. */
class Digest {
  bytes = 0;
  crc = 0;

  add(text) {
    const bytes = utf8.encode(text);
    this.bytes += bytes.length;
    this.crc = crc32(bytes, this.crc);
  }
}

/** One part. */
class Part extends Digest {
  content = '';
  id;
  name;
  /**
   * `open`, then `complete` or `incomplete`.
   * @type {import('../runnel.js').PartState}
   */
  state = 'open';

  /** `whole`: everything of the part is read, so that its digest can be checked. */
  constructor(index, kind, whole) {
    super();
    this.index = index;
    this.kind = kind;
    this.whole = whole;
  }

  append(content) {
    this.content += content;
    this.add(content);
  }

  identify({ id, name }) {
    if (this.kind !== 'tool_call' || typeof id !== 'string' || typeof name !== 'string') return;
    Object.assign(this, { id, name });
  }

  view() {
    const { index, kind, content, state, id, name } = this;
    return kind === 'tool_call' ? { index, kind, content, state, id, name } : { index, kind, content, state };
  }
}

/** The arguments of a finished call are empty or one JSON object. */
function isFinished(content) {
  if (content === '') return true;
  try {
    const parsed = JSON.parse(content);
    return typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed);
  } catch {
    return false;
  }
}

/** The output of one choice. As long as it is a single text part, the text and its digest are kept once. */
export class ChoiceOutput {
  text = '';
  #digest = new Digest();
  // Whether text part 0 was opened while it was the only part.
  #begun = false;
  /** @type {Map<number, Part> | null} */
  #parts = null;
  #textWhole;
  #partsWhole;

  /** `textWhole`: all text is read. `partsWhole`: no part was opened that the reader does not have. */
  constructor({ textWhole, partsWhole }) {
    this.#textWhole = textWhole;
    this.#partsWhole = partsWhole;
  }

  /** All parts, in the order of their index. */
  get parts() {
    return [...this.#all().values()].sort((a, b) => a.index - b.index).map((part) => part.view());
  }

  /** What a cursor needs besides the text: nothing if that is the whole output. */
  get details() {
    const { parts } = this;
    const plain = parts.length === 0 || (parts.length === 1 && parts[0].kind === 'text' && parts[0].index === 0);
    return plain ? [] : parts.map(({ state: _state, ...part }) => part);
  }

  /** Whether everything that was sent has been read. */
  get whole() {
    return this.#textWhole && (this.#parts === null || [...this.#parts.values()].every((part) => part.whole));
  }

  /** Applies a delta. Returns the part's index if the delta opened it for this reader, else undefined. */
  append({ part: index = 0, kind = 'text', text, content, id, name }) {
    const output = kind === 'text' ? text : content;
    if (typeof output !== 'string') throw malformed('delta');
    if (this.#parts === null && index === 0 && kind === 'text') {
      const opened = !this.#begun;
      this.#begun = true;
      this.#addText(output);
      return opened ? index : undefined;
    }
    check(index, kind);
    this.#parts ??= this.#all();
    const known = this.#parts.get(index);
    if (known && known.kind !== kind) throw malformed(`delta: part ${index} is ${known.kind}, not ${kind}`);
    const part = known ?? this.#open(index, kind, this.#partsWhole || id !== undefined);
    if (kind === 'text') this.#addText(output);
    part.identify({ id, name });
    part.append(output);
    return known ? undefined : index;
  }

  /**
   * Takes a part that was opened before the cursor. It is whole if its content is known, as in a snapshot or a cursor.
   *
   * @param {{ index: number, kind: string, id?: string, name?: string, content?: string }} part
   */
  restore({ index, kind, id, name, content }) {
    check(index, kind);
    if (content !== undefined && typeof content !== 'string') throw malformed('part');
    this.#parts ??= content === undefined ? this.#all() : new Map();
    const part = this.#parts.get(index) ?? this.#open(index, kind, content !== undefined);
    part.identify({ id, name });
    if (content !== undefined) part.append(content);
  }

  /** Restores the text, which is part 0 unless other parts are restored. An empty one may still become any part. */
  setText(text) {
    if (typeof text !== 'string') throw malformed('text');
    this.#begun = text !== '';
    this.#addText(text);
  }

  /** Undefined if the end of the choice in `done` agrees with what was read, else a description of the difference. */
  disagreement(end) {
    const difference = differenceOf(this.#digest, end.text_bytes, end.crc32, this.#textWhole);
    if (difference) return difference;
    if (end.parts === undefined) return this.#parts === null ? undefined : 'its parts are not in done';
    if (!Array.isArray(end.parts)) return 'malformed parts in done';
    return this.#disagreementOfParts(new Map(end.parts.map((part) => [part.index, part])));
  }

  /** The response is complete: every part is, except a call that was cut. `end` agrees with what was read. */
  settle(end) {
    const ends = new Map((end.parts ?? []).map((part) => [part.index, part]));
    this.#parts ??= this.#all();
    for (const each of ends.values()) if (!this.#parts.has(each.index)) this.restore({ ...each, content: undefined });
    for (const part of this.#parts.values()) {
      const sent = ends.get(part.index);
      if (sent) part.identify(sent);
      const finished = part.kind !== 'tool_call' ||
        (sent?.complete === true && WHOLE_ENDS.has(end.finish_reason) && isFinished(part.content));
      part.state = part.whole && finished ? 'complete' : 'incomplete';
    }
  }

  /** The response has ended without a proof. */
  abandon() {
    this.#parts ??= this.#all();
    for (const part of this.#parts.values()) part.state = 'incomplete';
  }

  #disagreementOfParts(ends) {
    const parts = this.#all();
    for (const index of parts.keys()) if (!ends.has(index)) return `part ${index} is not in done`;
    for (const [index, end] of ends) {
      const part = parts.get(index);
      if (!part && this.#partsWhole) return `part ${index} was not read`;
      if (!part) continue;
      if (end.kind !== part.kind) return `part ${index} was read as ${part.kind}, sent as ${end.kind}`;
      const sameCall = part.id === undefined || (part.id === end.id && part.name === end.name);
      if (!sameCall) return `part ${index} is another call`;
      const difference = differenceOf(part, end.bytes, end.crc32, part.whole);
      if (difference) return `part ${index}: ${difference}`;
    }
    return undefined;
  }

  #addText(text) {
    this.text += text;
    this.#digest.add(text);
  }

  #open(index, kind, whole) {
    const part = new Part(index, kind, whole);
    this.#parts?.set(index, part);
    return part;
  }

  // Text that was read before another part is part 0, if the reader knows all parts.
  #all() {
    if (this.#parts) return this.#parts;
    if (!this.#begun || !this.#partsWhole) return new Map();
    const part = new Part(0, 'text', this.#textWhole);
    part.append(this.text);
    return new Map([[0, part]]);
  }
}

function check(index, kind) {
  if (!Number.isInteger(index) || index < 0 || index >= MAX_PARTS || typeof kind !== 'string') throw malformed('part');
}

function differenceOf({ bytes, crc }, sentBytes, sentCrc, whole) {
  if (!whole) return bytes <= sentBytes ? undefined : `${bytes} bytes of ${sentBytes}`;
  if (bytes !== sentBytes) return `${bytes} bytes read, ${sentBytes} sent`;
  return hex8(crc) === sentCrc ? undefined : `CRC-32 ${hex8(crc)} read, ${sentCrc} sent`;
}
