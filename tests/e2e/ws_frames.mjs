// A WebSocket client of raw bytes on a socket, for frames that a well-behaved client never sends.
import { createHash } from 'node:crypto';
import { connect } from 'node:net';

export const TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10, CONTINUATION = 0;
const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const LIMIT_MS = 20_000;  // Bounds a failure only.

/**
 * One frame of a client. `mask`: four bytes, or null for none. `form`: size of the extended length (0, 2 or 8 bytes) if
 * not the shortest. `announced`: the length in the header if not the payload's length.
 */
export function frame(opcode, payload = '', {
  fin = true, rsv = 0, mask = [0x37, 0xfa, 0x21, 0x3d], form, announced,
} = {}) {
  const body = Buffer.from(payload);
  const length = BigInt(announced ?? body.length);
  const extended = form ?? (length < 126n ? 0 : length < 65536n ? 2 : 8);
  const head = Buffer.alloc(2 + extended);
  head[0] = (fin ? 0x80 : 0) | rsv << 4 | opcode;
  head[1] = (mask ? 0x80 : 0) | (extended === 0 ? Number(length) : extended === 2 ? 126 : 127);
  if (extended === 2) head.writeUInt16BE(Number(length), 2);
  if (extended === 8) head.writeBigUInt64BE(length, 2);
  if (!mask) return Buffer.concat([head, body]);
  const masked = Buffer.from(body);
  for (let i = 0; i < masked.length; i++) masked[i] ^= mask[i & 3];
  return Buffer.concat([head, Buffer.from(mask), masked]);
}

/** A close frame; without a code, an empty one. */
export function closeFrame(code, reason = '', options) {
  if (code === undefined) return frame(CLOSE, '', options);
  const payload = Buffer.alloc(2);
  payload.writeUInt16BE(code);
  return frame(CLOSE, Buffer.concat([payload, Buffer.from(reason)]), options);
}

/** A message in fragments of `size` bytes, with the bytes `between` between any two of them. */
export function fragments(opcode, payload, size, between = Buffer.alloc(0)) {
  const body = Buffer.from(payload);
  const parts = [];
  for (let at = 0; at === 0 || at < body.length; at += size) {
    if (at > 0) parts.push(between);
    parts.push(frame(at === 0 ? opcode : CONTINUATION, body.subarray(at, at + size), { fin: at + size >= body.length }));
  }
  return Buffer.concat(parts);
}

// The fields of one level of a Protobuf message: number -> last value (bytes, or a double).
function protoFields(bytes) {
  const fields = {};
  for (let at = 0; at < bytes.length;) {
    const number = bytes[at] >> 3;
    const type = bytes[at++] & 7;
    if (type === 1) {
      fields[number] = bytes.readDoubleLE(at);
      at += 8;
      continue;
    }
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) break;
    }
    fields[number] = type === 2 ? bytes.subarray(at, at + value) : value;
    if (type === 2) at += value;
  }
  return fields;
}

// A short form of a message. The server sends `req` back, so it serves as an echo.
function summary(opcode, payload) {
  if (opcode === BINARY) {
    const message = protoFields(payload);
    if (message[1]) return 'hello';
    if (message[5]) return `pong ${protoFields(message[5])[1] ?? 0}`;
    return message[4] ? `error ${protoFields(message[4])[1]}` : 'unknown';
  }
  const message = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload));
  if (message.type === 'pong') return `pong ${message.t}`;
  if (message.type !== 'error') return message.type;
  return message.req === undefined ? `error ${message.error.code}` : `echo ${message.req}`;
}

// Removes complete frames of the server from `bytes`; throws if one of them breaks the rules for servers.
function takeFrames(bytes, seen) {
  for (;;) {
    if (bytes.length < 2) return bytes;
    const opcode = bytes[0] & 0x0f;
    const short = bytes[1] & 0x7f;
    const head = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (bytes.length < head) return bytes;
    const length = short < 126 ? short : short === 126 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
    if (bytes.length < head + length) return bytes;
    if ((bytes[0] & 0xf0) !== 0x80) throw new Error('the server sent a fragment, or reserved bits');
    if (bytes[1] & 0x80) throw new Error('the server masked a frame');
    if ((head === 4 && length < 126) || (head === 10 && length < 65536)) throw new Error('not the shortest length');
    const payload = bytes.subarray(head, head + length);
    if (opcode === CLOSE) seen.push(`close ${length < 2 ? 'empty' : payload.readUInt16BE(0)}`);
    else if (opcode === PONG) seen.push(`PONG ${payload.toString('hex')}`);
    else if (opcode !== PING) seen.push(summary(opcode, payload));
    bytes = bytes.subarray(head + length);
  }
}

/**
 * Upgrades, sends `chunks` one after another, replies to a close frame, and reads until the server ends the connection.
 * Resolves with what it received, in order, without `hello`; the last entry is `end`, `reset` or `timeout`.
 */
export function converse(url, protocol, chunks) {
  const { hostname, port, pathname } = new URL(url);
  const key = Buffer.from('0123456789abcdef').toString('base64');
  const accept = createHash('sha1').update(key + GUID).digest('base64');
  return new Promise((resolve, reject) => {
    const socket = connect({ host: hostname, port, noDelay: true });
    const seen = [];
    let bytes = Buffer.alloc(0);
    let upgraded = false;
    let replied = false;
    const limit = setTimeout(() => finish('timeout'), LIMIT_MS);
    function finish(end) {
      clearTimeout(limit);
      socket.destroy();
      if (seen[0] === 'hello') seen.shift();
      resolve([...seen, end]);
    }
    function fail(error) {
      clearTimeout(limit);
      socket.destroy();
      reject(error);
    }
    function upgrade() {
      const end = bytes.indexOf('\r\n\r\n');
      if (end < 0) return false;
      const head = bytes.subarray(0, end).toString('latin1');
      if (!head.startsWith('HTTP/1.1 101 ') || !head.includes(accept)) throw new Error(`not upgraded: ${head}`);
      bytes = bytes.subarray(end + 4);
      for (const chunk of chunks) socket.write(chunk);
      return true;
    }
    socket.on('connect', () => socket.write(
      `GET ${pathname} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n`
      + `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\nSec-WebSocket-Protocol: ${protocol}\r\n\r\n`));
    socket.on('data', (data) => {
      try {
        bytes = Buffer.concat([bytes, data]);
        upgraded ||= upgrade();
        if (!upgraded) return;
        bytes = takeFrames(bytes, seen);
        if (!replied && seen.some((each) => each.startsWith('close '))) {
          replied = true;
          socket.write(closeFrame(1000));
        }
      } catch (error) {
        fail(error);
      }
    });
    socket.on('end', () => finish('end'));
    socket.on('error', () => finish('reset'));
    socket.on('close', () => finish('end'));
  });
}
