// Strict readers of the WebSocket bridge, with JSON or Protobuf and several generations on one connection.
import { Break, Refused, Wrong } from '../faults.mjs';
import { field, generateRequest, serverMessageOf } from '../protobuf.mjs';
import { Inbox } from './inbox.mjs';
import { WsSocket } from './ws_socket.mjs';

// WebSocketResume.after_epoch.
const RESUME_EPOCH = 5;

const ENCODE = {
  json: {
    generate: (req, script) =>
      JSON.stringify({ type: 'generate', req, body: script.body(), idempotency_key: script.key }),
    resume: (req, gen, after, epoch) => JSON.stringify({ type: 'resume', req, gen, after, ...(epoch && { epoch }) }),
    detach: (gen) => JSON.stringify({ type: 'detach', gen }),
    cancel: (gen) => JSON.stringify({ type: 'cancel', gen }),
  },
  proto: {
    generate: (req, script) =>
      field.bytes(2, Buffer.concat([field.text(1, req), field.bytes(2, generateRequest(script))])),
    resume: (req, gen, after, epoch) =>
      field.bytes(3, Buffer.concat([field.text(1, req), field.text(2, gen), field.number(3, after), field.number(RESUME_EPOCH, epoch)])),
    detach: (gen) => field.bytes(5, field.text(1, gen)),
    cancel: (gen) => field.bytes(4, field.text(1, gen)),
  },
};

/** One connection after `hello`, on which streams may be opened. */
export class WsConnection {
  static async open(url, { format = 'json', idleMs, headers }) {
    const connection = new WsConnection(format);
    connection.socket = await WsSocket.open(url, {
      protocol: format === 'json' ? 'runnel.v1' : 'runnel.v1.proto', idleMs, headers,
      onMessage: (message) => connection.#onMessage(message),
      onEnd: (error) => connection.#onEnd(error),
    });
    await connection.hello;
    return connection;
  }

  constructor(format) {
    Object.assign(this, { format, encode: ENCODE[format], byReq: new Map(), byGen: new Map(), next: 1 });
    this.hello = new Promise((resolve, reject) => Object.assign(this, { resolveHello: resolve, rejectHello: reject }));
    // So that a connection that ends before its hello is awaited is not an unhandled rejection.
    this.hello.catch(() => {});
  }

  get usable() {
    return this.error === undefined && !this.leaving;
  }

  /** The events of one generation; leaving the iteration detaches. */
  async* read({ script, id, after, epoch }) {
    if (this.error !== undefined) throw this.error;
    const req = `r${this.next++}`;
    const inbox = new Inbox();
    const stream = { inbox, gen: id, attached: id === undefined };
    this.byReq.set(req, stream);
    this.socket.send(id === undefined ? this.encode.generate(req, script) : this.encode.resume(req, id, after, epoch));
    try {
      for (;;) {
        const event = await inbox.next();
        yield event;
        if (event.type === 'done' || event.type === 'failed') return;
      }
    } finally {
      this.byReq.delete(req);
      if (this.byGen.get(stream.gen) === stream) {
        this.byGen.delete(stream.gen);
        if (!stream.over) this.socket.send(this.encode.detach(stream.gen));
      }
    }
  }

  cancel(id) {
    this.socket.send(this.encode.cancel(id));
  }

  close() {
    this.socket.close();
  }

  #onMessage(raw) {
    if ((typeof raw === 'string') !== (this.format === 'json')) throw new Wrong('a frame of the wrong kind');
    const message = this.format === 'json' ? JSON.parse(raw) : serverMessageOf(raw);
    if (message.type === 'hello') return this.resolveHello(message);
    if (message.type === 'pong' || message.type === 'heartbeat') return undefined;
    if (message.type === 'goaway') return void (this.leaving = true);
    const stream = message.req ? this.byReq.get(message.req) : this.byGen.get(message.gen);
    if (message.type === 'error') {
      const { status, code, message: text } = message.error;
      return stream?.inbox.fail(new Refused('WebSocket', status, code, text));
    }
    if (stream === undefined) return undefined;
    if (message.req) {
      stream.gen = message.gen;
      this.byReq.delete(message.req);
      this.byGen.set(message.gen, stream);
    }
    if (message.type === 'attached') {
      stream.attached = true;
      if (message.parts !== undefined) stream.inbox.push(message);
      return undefined;
    }
    if (!stream.attached) throw new Wrong(`an event before attached: ${JSON.stringify(message)}`);
    delete message.req;
    stream.over = message.type === 'done' || message.type === 'failed';
    stream.inbox.push(message);
  }

  #onEnd(error) {
    this.error = error instanceof Wrong ? error : error instanceof Break ? error : new Break(error.message);
    this.rejectHello(this.error);
    for (const stream of [...this.byReq.values(), ...this.byGen.values()]) stream.inbox.fail(this.error);
  }
}

/** Reads one generation on a separate connection. */
export async function* readWs(url, { format, idleMs, ...what }) {
  const connection = await WsConnection.open(url, { format, idleMs });
  try {
    yield* connection.read(what);
  } finally {
    connection.close();
  }
}
