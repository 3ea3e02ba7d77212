// The client side of RFC 6455, strict: anything that a server must not send is Wrong.
import { createHash, randomBytes } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import { Break, Wrong, refusal } from '../faults.mjs';
import { bodyText } from './http.mjs';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const MAX_PAYLOAD = 4 << 20;
const utf8 = new TextDecoder('utf-8', { fatal: true });

function frame(opcode, payload) {
  const body = Buffer.from(payload);
  const mask = randomBytes(4);
  const length = body.length < 126 ? Buffer.from([0x80 | body.length]) : Buffer.alloc(body.length < 65536 ? 3 : 9);
  if (length.length === 3) {
    length[0] = 0x80 | 126;
    length.writeUInt16BE(body.length, 1);
  } else if (length.length === 9) {
    length[0] = 0x80 | 127;
    length.writeBigUInt64BE(BigInt(body.length), 1);
  }
  for (let i = 0; i < body.length; i++) body[i] ^= mask[i & 3];
  return Buffer.concat([Buffer.from([0x80 | opcode]), length, mask, body]);
}

/** One frame from the front of `buffer`: {opcode, payload, size}; undefined if it is incomplete. */
function parseFrame(buffer) {
  if (buffer.length < 2) return undefined;
  if ((buffer[0] & 0xf0) !== 0x80 || buffer[1] & 0x80) {
    throw new Wrong(`a frame begins ${buffer.subarray(0, 2).toString('hex')}`);
  }
  const short = buffer[1] & 0x7f;
  const head = short < 126 ? 2 : short === 126 ? 4 : 10;
  if (buffer.length < head) return undefined;
  const length = short < 126 ? short : short === 126 ? buffer.readUInt16BE(2) : Number(buffer.readBigUInt64BE(2));
  if (length > MAX_PAYLOAD || ((buffer[0] & 8) && length > 125)) throw new Wrong(`a frame of ${length} bytes`);
  if (buffer.length < head + length) return undefined;
  return { opcode: buffer[0] & 15, payload: buffer.subarray(head, head + length), size: head + length };
}

/**
 * An open socket. Calls `onMessage(text or Buffer)`, then once `onEnd(error)` with a Break (with `code` if there was a
 * close frame) or Wrong. A server that sends nothing for `idleMs`, not even a ping, is a Break.
 */
export class WsSocket {
  static open(url, { protocol, idleMs, headers = {}, onMessage, onEnd }) {
    return new Promise((resolve, reject) => {
      const key = randomBytes(16).toString('base64');
      const { request: send } = url.startsWith('wss:') ? https : http;
      const sent = send(url.replace(/^ws/, 'http'), {
        agent: false, rejectUnauthorized: false,
        headers: { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': key,
          ...(protocol && { 'sec-websocket-protocol': protocol }), ...headers },
      });
      const fail = (error) => reject(error instanceof Break ? error : new Break(error.code ?? error.message));
      sent.setTimeout(idleMs, () => sent.destroy(new Break('silence', { silent: true })));
      sent.on('error', fail);
      sent.on('response', (response) => bodyText(response)
        .then((text) => reject(refusal('WebSocket', response.statusCode, text)), reject));
      sent.on('upgrade', (response, socket, head) => {
        const accept = createHash('sha1').update(key + GUID).digest('base64');
        const { 'sec-websocket-accept': accepted, 'sec-websocket-protocol': agreed } = response.headers;
        if (accepted !== accept || agreed !== protocol) {
          socket.destroy();
          return reject(new Wrong(`a bad upgrade: ${JSON.stringify(response.headers)}`));
        }
        resolve(new WsSocket(socket, head, { idleMs, onMessage, onEnd }));
      });
      sent.end();
    });
  }

  constructor(socket, head, { idleMs, onMessage, onEnd }) {
    Object.assign(this, { socket, onMessage, onEnd, buffer: Buffer.alloc(0), ended: false });
    socket.setNoDelay(true);
    socket.setTimeout(idleMs, () => this.end(new Break('silence', { silent: true })));
    socket.on('error', (error) => this.end(new Break(error.code ?? error.message)));
    socket.on('close', () => this.end(new Break('closed')));
    socket.on('end', () => this.end(new Break('an end without a close frame')));
    socket.on('data', (bytes) => this.#take(bytes));
    // The owner gets the socket first, then the bytes that arrived with the upgrade.
    if (head.length > 0) setImmediate(() => this.#take(head));
  }

  send(message) {
    if (!this.ended) this.socket.write(typeof message === 'string' ? frame(1, message) : frame(2, message));
  }

  close() {
    if (!this.ended) this.socket.end(frame(8, Buffer.from([3, 232])));
    this.end(new Break('closed by us'));
  }

  end(error) {
    if (this.ended) return;
    this.ended = true;
    this.socket.destroySoon();
    this.onEnd(error);
  }

  #take(bytes) {
    this.buffer = this.buffer.length > 0 ? Buffer.concat([this.buffer, bytes]) : bytes;
    try {
      for (let next; !this.ended && (next = parseFrame(this.buffer)) !== undefined;) {
        this.buffer = this.buffer.subarray(next.size);
        this.#frame(next);
      }
    } catch (error) {
      this.end(error instanceof Wrong ? error : new Wrong(error.message, { cause: error }));
    }
  }

  #frame({ opcode, payload }) {
    if (opcode === 1) return this.onMessage(utf8.decode(payload));
    if (opcode === 2) return this.onMessage(payload);
    if (opcode === 9) return void this.socket.write(frame(10, payload));
    if (opcode === 10) return undefined;
    if (opcode !== 8) throw new Wrong(`opcode ${opcode}`);
    const code = payload.length >= 2 ? payload.readUInt16BE() : 1005;
    this.socket.write(frame(8, payload.subarray(0, 2)));
    this.end(Object.assign(new Break(`closed with ${code}`), { code }));
  }
}
