// A WebSocket client that can send any bytes.
import { randomBytes } from 'node:crypto';
import { AUTHORIZATION } from './arena.mjs';
import { Connection } from './raw.mjs';

export const UPGRADE = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n' +
  'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n';
export const handshake = (lines = '', host = '127.0.0.1') =>
  `GET /v1/ws HTTP/1.1\r\nHost: ${host}\r\n${UPGRADE}${lines}\r\n`;

/** A frame of a client, with any header. `length`: the announced length if not the payload's length. */
export function wsFrame(opcode, payload, { fin = true, length } = {}) {
  const body = Buffer.from(payload);
  const announced = length ?? body.length;
  const head = Buffer.alloc(10);
  head[0] = (fin ? 0x80 : 0) | opcode;
  head[1] = 0x80 | 127;
  head.writeBigUInt64BE(BigInt(announced), 2);
  const short = announced < 126 ? Buffer.from([head[0], 0x80 | announced])
    : announced < 65536 ? Buffer.from([head[0], 0x80 | 126, announced >> 8, announced & 255]) : head;
  const mask = randomBytes(4);
  for (let i = 0; i < body.length; i++) body[i] ^= mask[i & 3];
  return Buffer.concat([short, mask, body]);
}

/** The frames that a connection has received after its handshake, as {opcode, payload}. */
export function framesOf({ received }) {
  const frames = [];
  let rest = received.subarray(received.indexOf('\r\n\r\n') + 4);
  for (;;) {
    if (rest.length < 2) return frames;
    const short = rest[1] & 0x7f;
    const head = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (rest.length < head) return frames;
    const length = short < 126 ? short : short === 126 ? rest.readUInt16BE(2) : Number(rest.readBigUInt64BE(2));
    if (rest.length < head + length) return frames;
    frames.push({ opcode: rest[0] & 15, payload: rest.subarray(head, head + length) });
    rest = rest.subarray(head + length);
  }
}

export const closeCode = (connection) => {
  const close = framesOf(connection).find(({ opcode }) => opcode === 8);
  return close?.payload.length >= 2 ? close.payload.readUInt16BE() : undefined;
};

/** Connects and resolves once `hello` has arrived. */
export async function open(address, lines = AUTHORIZATION) {
  const connection = await Connection.open(address);
  await connection.send(handshake(lines));
  if (!(await connection.wait(() => framesOf(connection).length > 0, 5000))) {
    throw new Error(`no hello: ${connection.received.toString('latin1').slice(0, 200)}`);
  }
  return connection;
}
