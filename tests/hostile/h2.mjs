// HTTP/2 frames as bytes (RFC 9113), for frames that no client library would send.
import { Connection } from './raw.mjs';

export const TYPE = { headers: 1, rstStream: 3, settings: 4, ping: 6, goaway: 7, continuation: 9 };
export const END_HEADERS = 4;
export const ACK = 1;
const MAX_CONCURRENT_STREAMS = 3;

export function frame(type, flags, stream, payload = Buffer.alloc(0)) {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

const text = (value) => Buffer.concat([Buffer.from([value.length]), Buffer.from(value)]);

/** The header block of a gRPC call, with every field a literal without indexing (RFC 7541). */
export function callHeaders(path) {
  return Buffer.concat([
    Buffer.from([0x83, 0x86, 0x04]), text(path), // :method POST, :scheme http, :path
    Buffer.from([0x01]), text('localhost'), Buffer.from([0x0f, 0x10]), text('application/grpc'), // :authority, content-type
    Buffer.from([0x00]), text('te'), text('trailers'),
  ]);
}

/** The client's connection preface with empty SETTINGS. */
export const PREFACE = Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(TYPE.settings, 0, 0)]);

/** A connection after the preface and SETTINGS. Received frames are counted but not kept. */
export class H2Connection {
  settings = new Map();
  /** Number of RST_STREAM frames received, by error code. */
  resets = new Map();
  goaway = undefined;
  #rest = Buffer.alloc(0);

  static async open(address) {
    const connection = new H2Connection(await Connection.open(address));
    await connection.raw.send(PREFACE);
    await connection.raw.wait(() => connection.settings.size > 0, 5000);
    return connection;
  }

  constructor(raw) {
    this.raw = raw;
    raw.socket.on('data', (bytes) => {
      this.#rest = Buffer.concat([this.#rest, bytes]);
      while (this.#rest.length >= 9 && this.#rest.length >= 9 + this.#rest.readUIntBE(0, 3)) {
        const length = this.#rest.readUIntBE(0, 3);
        this.#take(this.#rest[3], this.#rest[4], this.#rest.subarray(9, 9 + length));
        this.#rest = this.#rest.subarray(9 + length);
      }
      raw.received = Buffer.alloc(0);
    });
  }

  get maxConcurrentStreams() {
    return this.settings.get(MAX_CONCURRENT_STREAMS);
  }

  #take(type, flags, payload) {
    if (type === TYPE.settings && !(flags & ACK)) {
      for (let i = 0; i + 6 <= payload.length; i += 6) {
        this.settings.set(payload.readUInt16BE(i), payload.readUInt32BE(i + 2));
      }
      this.raw.send(frame(TYPE.settings, ACK, 0));
    }
    if (type === TYPE.rstStream) {
      const code = payload.readUInt32BE();
      this.resets.set(code, (this.resets.get(code) ?? 0) + 1);
    }
    if (type === TYPE.goaway) this.goaway = payload.readUInt32BE(4);
  }
}
