// The part of Protobuf that Runnel's messages need, written from its specification, so that the reader shares no code
// with the bridge that it checks.
import { Wrong } from './faults.mjs';

const utf8 = new TextDecoder('utf-8', { fatal: true });

function varint(value) {
  const bytes = [];
  let left = BigInt(value);
  do {
    bytes.push(Number(left & 0x7fn) | (left > 0x7fn ? 0x80 : 0));
    left >>= 7n;
  } while (left > 0n);
  return Buffer.from(bytes);
}

export const field = {
  number: (tag, value) => (value ? Buffer.concat([varint(tag << 3), varint(value)]) : Buffer.alloc(0)),
  // Also written if it is 0: for fields whose absence has another meaning.
  present: (tag, value) => Buffer.concat([varint(tag << 3), varint(value)]),
  bytes: (tag, value) => {
    const body = Buffer.from(value);
    return Buffer.concat([varint((tag << 3) | 2), varint(body.length), body]);
  },
  text: (tag, value) => (value ? field.bytes(tag, value) : Buffer.alloc(0)),
  map: (tag, pairs) => Buffer.concat(Object.entries(pairs).map(([key, value]) =>
    field.bytes(tag, Buffer.concat([field.text(1, key), field.text(2, value)])))),
};

/** The fields of a message: a Map from tag to the list of its values (numbers or Buffers). */
export function decode(buffer) {
  const fields = new Map();
  let at = 0;
  const readVarint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      if (at >= buffer.length || shift > 63n) throw new Wrong('an invalid varint');
      const byte = buffer[at++];
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return Number(BigInt.asUintN(64, value));
    }
  };
  while (at < buffer.length) {
    const key = readVarint();
    const size = { 1: () => 8, 2: readVarint, 5: () => 4 }[key & 7];
    let value;
    if ((key & 7) === 0) {
      value = readVarint();
    } else {
      if (size === undefined) throw new Wrong(`wire type ${key & 7}`);
      const length = size();
      if (at + length > buffer.length) throw new Wrong('a field past the end of its message');
      value = buffer.subarray(at, at + length);
      at += length;
    }
    fields.set(key >> 3, [...(fields.get(key >> 3) ?? []), value]);
  }
  return fields;
}

const text = (fields, tag) => utf8.decode(fields.get(tag)?.at(-1) ?? Buffer.alloc(0));
const number = (fields, tag) => fields.get(tag)?.at(-1) ?? 0;
const message = (fields, tag) => (fields.has(tag) ? decode(fields.get(tag).at(-1)) : undefined);

const FINISH = [null, 'stop', 'length', 'cancelled', 'content_filter', 'tool_calls'];
const KINDS = ['text', 'reasoning', 'tool_call', 'refusal'];
const crc = (fields, tag) => (fields.get(tag)?.at(-1).readUInt32LE() ?? 0).toString(16).padStart(8, '0');

/** Id and name of a call, in any message that describes a part. */
const callOf = (part, kind, tag) => (kind === 'tool_call' ? { id: text(part, tag), name: text(part, tag + 1) } : {});

function partEndOf(buffer) {
  const part = decode(buffer);
  const kind = KINDS[number(part, 2)];
  const complete = kind === 'tool_call' ? { complete: number(part, 7) === 1 } : {};
  return { index: number(part, 1), kind, bytes: number(part, 3), crc32: crc(part, 4), ...callOf(part, kind, 5), ...complete };
}

function partTextOf(buffer) {
  const part = decode(buffer);
  const kind = KINDS[number(part, 2)];
  return { index: number(part, 1), kind, ...callOf(part, kind, 3), content: text(part, 5) };
}

export function openedPartOf(buffer) {
  const part = decode(buffer);
  const kind = KINDS[number(part, 3)];
  return { choice: number(part, 1), index: number(part, 2), kind, ...callOf(part, kind, 4), bytes: number(part, 6) };
}

function deltaOf(delta) {
  const kind = KINDS[number(delta, 6)];
  const call = message(delta, 8);
  return {
    type: 'delta', choice: number(delta, 1), text: text(delta, 2), tokens: number(delta, 3), part: number(delta, 5), kind,
    content: text(delta, 7), ...(call && { id: text(call, 1), name: text(call, 2) }),
  };
}

function payload(event) {
  const started = message(event, 10);
  if (started) return { type: 'started', model: text(started, 1), prompt_tokens: number(started, 3) };
  const delta = message(event, 11);
  if (delta) return deltaOf(delta);
  const done = message(event, 12);
  if (done) {
    const choices = (done.get(2) ?? []).map(decode).map((end) => ({
      index: number(end, 1), finish_reason: FINISH[number(end, 2)], text_bytes: number(end, 3),
      crc32: crc(end, 4), ...(end.has(5) && { parts: end.get(5).map(partEndOf) }),
    }));
    return { type: 'done', events: number(done, 1), choices };
  }
  const failed = message(event, 13);
  if (failed) {
    const error = { code: text(failed, 1), message: text(failed, 2), retryable: !!number(failed, 3) };
    return { type: 'failed', error };
  }
  const gap = message(event, 14);
  if (!gap) throw new Wrong('an event without a payload');
  const choices = (gap.get(4) ?? []).map(decode).map((choice) => ({
    index: number(choice, 1), text: text(choice, 2), ...(choice.has(4) && { parts: choice.get(4).map(partTextOf) }),
  }));
  return { type: 'gap', requested_after: number(gap, 1), first_available: number(gap, 2),
    snapshot: { seq: number(event, 2), choices } };
}

/** A GenerationEvent as its JSON object. */
export function eventOf(buffer) {
  const event = decode(buffer);
  const first = number(event, 3);
  const epoch = number(event, 5);
  return { ...payload(event), gen: text(event, 1), seq: number(event, 2), ...(first && { first_seq: first }), ...(epoch && { epoch }),
    ms: Math.floor(number(event, 4) / 1000) };
}

/** A WebSocketServerMessage as its JSON object. */
export function serverMessageOf(buffer) {
  const fields = decode(buffer);
  const req = text(fields, 15) || undefined;
  if (fields.has(1)) return { type: 'hello', v: number(message(fields, 1), 1) };
  const attached = message(fields, 2);
  if (attached) {
    const status = ['', 'queued', 'running', 'done', 'failed'][number(attached, 4)];
    const [after, last] = [number(attached, 2), number(attached, 3)];
    return { type: 'attached', req, gen: text(attached, 1), after, last_seq: last, status,
      ...(attached.has(5) && { parts: attached.get(5).map(openedPartOf) }) };
  }
  if (fields.has(3)) return { ...eventOf(fields.get(3).at(-1)), req };
  const error = message(fields, 4);
  if (error) {
    return { type: 'error', req, gen: text(error, 5) || undefined,
      error: { code: text(error, 1), message: text(error, 2), status: number(error, 3) } };
  }
  if (fields.has(5)) return { type: 'pong' };
  if (fields.has(6)) return { type: 'goaway', reason: text(message(fields, 6), 1) };
  if (fields.has(7)) return { type: 'heartbeat', gen: text(message(fields, 7), 1) };
  throw new Wrong('a server message of no type');
}

/** The GenerateRequest of a script. */
export function generateRequest(script) {
  const detach = script.detachMs;
  return Buffer.concat([
    field.text(3, script.prompt),
    field.bytes(4, field.present(7, script.seed)),
    field.present(5, script.maxTokens),
    field.present(6, script.choices),
    detach === undefined ? Buffer.alloc(0)
      : field.bytes(8, Buffer.concat(
        [field.number(1, Math.floor(detach / 1000)), field.number(2, (detach % 1000) * 1e6)])),
    field.text(10, script.key),
    field.map(11, script.metadata()),
  ]);
}
