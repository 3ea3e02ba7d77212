// Text frames of RFC 6455: a server for the fake bridge, and a client because Node.js 20 has none.
import { createHash, randomBytes } from 'node:crypto';
import { request } from 'node:http';

export function acceptKey(key) {
  return createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
}

export function encodeFrame(opcode, payload, masked) {
  const length = payload.length;
  const head = length < 126 ? Buffer.from([0x80 | opcode, length]) : Buffer.alloc(length < 65536 ? 4 : 10);
  if (length >= 126) {
    head[0] = 0x80 | opcode;
    head[1] = length < 65536 ? 126 : 127;
    if (length < 65536) head.writeUInt16BE(length, 2);
    else head.writeBigUInt64BE(BigInt(length), 2);
  }
  if (!masked) return Buffer.concat([head, payload]);
  head[1] |= 0x80;
  const mask = randomBytes(4);
  return Buffer.concat([head, mask, payload.map((byte, i) => byte ^ mask[i & 3])]);
}

export function closePayload(code, reason = '') {
  const code16 = Buffer.alloc(2);
  code16.writeUInt16BE(code);
  return Buffer.concat([code16, Buffer.from(reason)]);
}

/** Calls onFrame(opcode, payload) for each whole frame. Fragments are not supported. */
export function frameReader(onFrame) {
  let rest = Buffer.alloc(0);
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    for (;;) {
      if (rest.length < 2) return;
      let length = rest[1] & 0x7f;
      let at = 2;
      if (length === 126) [length, at] = rest.length >= 4 ? [rest.readUInt16BE(2), 4] : [Infinity, 0];
      else if (length === 127) [length, at] = rest.length >= 10 ? [Number(rest.readBigUInt64BE(2)), 10] : [Infinity, 0];
      const masked = (rest[1] & 0x80) !== 0;
      const end = at + (masked ? 4 : 0) + length;
      if (rest.length < end) return;
      let payload = rest.subarray(end - length, end);
      const mask = rest.subarray(at, at + 4);
      if (masked) payload = payload.map((byte, i) => byte ^ mask[i & 3]);
      const opcode = rest[0] & 0x0f;
      rest = rest.subarray(end);
      onFrame(opcode, payload);
    }
  };
}

/** The part of the browser's WebSocket that runnel.js uses. */
export class ClientWebSocket {
  readyState = 0;
  protocol = '';
  onopen = null;
  onmessage = null;
  onerror = null;
  onclose = null;
  #socket;
  #close = { code: 1006, reason: '' };

  constructor(url, protocols) {
    const key = randomBytes(16).toString('base64');
    const req = request(url.replace(/^ws/, 'http'), {
      headers: {
        connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': key,
        'sec-websocket-protocol': protocols.join(', '),
      },
    });
    this.#socket = { end: () => req.destroy(), write() {} };
    req.on('error', () => this.#over());
    req.on('response', (response) => (response.resume(), this.#over()));
    req.on('upgrade', (response, socket, head) => this.#opened(response, socket, head));
    req.end();
  }

  send(text) {
    this.#socket.write(encodeFrame(1, Buffer.from(text), true));
  }

  close(code = 1000) {
    if (this.readyState >= 2) return;
    if (this.readyState === 1) this.#socket.write(encodeFrame(8, closePayload(code), true));
    this.readyState = 2;
    this.#socket.end();
  }

  #opened(response, socket, head) {
    this.#socket = socket;
    this.readyState = 1;
    this.protocol = response.headers['sec-websocket-protocol'] ?? '';
    const read = frameReader((opcode, payload) => {
      if (opcode === 1) this.onmessage?.({ data: payload.toString() });
      if (opcode === 9) socket.write(encodeFrame(10, payload, true));
      if (opcode === 8) {
        this.#close = { code: payload.length >= 2 ? payload.readUInt16BE() : 1005, reason: payload.toString('utf8', 2) };
        socket.end();
      }
    });
    socket.on('data', read);
    socket.on('error', () => {});
    socket.on('close', () => this.#over());
    this.onopen?.({});
    if (head.length > 0) read(head);
  }

  #over() {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose?.(this.#close);
  }
}
