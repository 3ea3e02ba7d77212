// Runnel in one process: the page, the SSE bridge and the WebSocket bridge in front of fake logs, with faults on
// demand. Run it by hand to work on the page:  node tests/unit/bridges/web/fake_server.mjs --port 8090
//
// `faults` is a list of { on, ...fault }: a request takes the first one whose `on` is its kind (create, events, poll,
// ws, cancel; `read` is any kind that carries events). Faults: `status` + `headers` + `body` is the response; `reset`
// breaks the connection after the request took effect; `contentType`; `cutAfter` bytes of body or frames; `endAfter`
// events, cleanly; `repeat` sends each event twice; `skip(event)`; `merge`; `bom`; `gapFirst` (a lost tail); `silent`
// (no byte is ever sent); `silentAfter` events; `hold` so many bytes, as a proxy that buffers; `goawayAfter` events.
// For WebSockets: `closeCode` with `endAfter`; `subprotocol`; `deaf` (pings and cancels are ignored); `error` and
// `lateError`, the error frames of a rejected and of a broken stream.
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { FakeGeneration, merge, readPosition } from './fake_log.mjs';
import { acceptKey, closePayload, encodeFrame, frameReader } from './fake_ws.mjs';

const WEB = new URL('../../../../bridges/web/', import.meta.url);
const FILE = /^\/(?:[a-z0-9_]+\/)?[a-z0-9_]+\.(?:html|js|css|svg)$/;
const TYPES = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml',
};
const STREAMS = new Set(['create', 'events', 'poll', 'ws']);

/** Bytes to one peer, with the faults of this connection applied to them. */
class Sender {
  #left;
  #sent = 0;
  #held = Buffer.alloc(0);

  constructor(fault, write, cut, end) {
    this.fault = fault;
    this.#left = fault.cutAfter ?? Infinity;
    Object.assign(this, { write: (bytes) => this.#hold(bytes, write), cut, end: () => (this.#flush(write), end?.()) });
    this.over = false;
  }

  #hold(bytes, write) {
    this.#held = Buffer.concat([this.#held, bytes]);
    if (this.#held.length >= (this.fault.hold ?? 0)) this.#flush(write);
  }

  #flush(write) {
    if (this.#held.length > 0) write(this.#held);
    this.#held = Buffer.alloc(0);
  }

  bytes(text) {
    if (this.over) return;
    const bytes = Buffer.from(text);
    if (bytes.length < this.#left) {
      this.#left -= bytes.length;
      this.write(bytes);
    } else {
      this.over = true;
      this.cut(bytes.subarray(0, this.#left));
    }
  }

  /** Calls send(event) for the events that the faults let through. Returns false once the connection must end. */
  events(events, send) {
    const { fault } = this;
    for (const event of fault.merge ? merge(events) : events) {
      if (this.over || this.#sent >= (fault.endAfter ?? Infinity)) return false;
      if (this.#sent++ >= (fault.silentAfter ?? Infinity)) continue;
      if (fault.skip?.(event)) continue;
      send(event);
      if (fault.repeat) send(event);
    }
    return !this.over && this.#sent < (fault.endAfter ?? Infinity);
  }
}

export class FakeServer {
  generations = new Map();
  purged = new Set();
  faults = [];
  requests = [];
  starts = 0;
  models = [{ id: 'scripted', object: 'model', created: 1, owned_by: 'runnel', engine: 'scripted', context_length: 4096 }];
  /** What a start makes; the default plays words at the pace that the metadata ask for. */
  onStart = (body) => {
    const option = (name) => Number(body.metadata?.[`scripted.${name}`]) || undefined;
    return new FakeGeneration({ model: body.model || this.models[0].id }).play({
      tokens: option('tokens') ?? body.max_tokens, tokensPerSecond: option('tokens_per_second'),
      firstTokenMs: option('first_token_ms'),
    });
  };
  pollWaitMs = 20_000;
  /** Bytes that every stream over HTTP is held back by, as by a proxy that buffers. */
  hold = 0;
  #byKey = new Map();
  // What sends a heartbeat, or a goaway, over each open stream.
  #talkers = new Set();
  #sockets = new Set();
  #closed = false;
  #server = createServer((req, res) => this.#serve(req, res).catch((error) => res.destroy(error)));

  async listen(port = 0) {
    this.#server.on('upgrade', (req, socket) => this.#upgrade(req, socket));
    this.#server.on('connection', (socket) => {
      // A connection that was being opened when the others were cut would keep the server open.
      if (this.#closed) return socket.destroy();
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      socket.on('error', () => {});
      return undefined;
    });
    await new Promise((resolve) => this.#server.listen(port, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${this.#server.address().port}`;
    return this;
  }

  /** Sends a heartbeat to every reader, with the state of its generation. */
  beat(state) {
    for (const talker of this.#talkers) talker.beat(state);
  }

  /** Sends goaway to every reader. */
  goAway(deadlineMs) {
    for (const talker of this.#talkers) talker.say({ type: 'goaway', reason: 'drain', deadline_ms: deadlineMs });
  }

  /** Breaks every connection. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  #talk(talker, signal) {
    this.#talkers.add(talker);
    signal.addEventListener('abort', () => this.#talkers.delete(talker));
  }

  async close() {
    for (const generation of this.generations.values()) generation.stop();
    this.#closed = true;
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  add(generation) {
    this.generations.set(generation.id, generation);
    return generation;
  }

  #takeFault(kind) {
    const index = this.faults.findIndex(({ on }) => on === kind || (on === 'read' && STREAMS.has(kind)));
    return index < 0 ? {} : this.faults.splice(index, 1)[0];
  }

  #start(body, key) {
    const known = this.#byKey.get(key);
    if (known) return known;
    this.starts++;
    const generation = this.add(this.onStart(body));
    if (key) this.#byKey.set(key, generation);
    return generation;
  }

  // ---- HTTP

  async #serve(req, res) {
    const url = new URL(req.url, this.url);
    const [, id, action] = /^\/v1\/generations\/([^/]+)(?:\/(\w+))?$/.exec(url.pathname) ?? [];
    const path = url.pathname === '/' ? '/index.html' : url.pathname;
    if (req.method === 'GET' && FILE.test(path)) return this.#file(`.${path}`, res);
    if (url.pathname === '/config.json') return json(res, 200, { ws_url: null });
    if (url.pathname === '/v1/models') return json(res, 200, { object: 'list', data: this.models });
    if (url.pathname === '/v1/generations' && req.method === 'POST') return this.#create(req, res);
    if (id && action === 'cancel' && req.method === 'POST') return this.#cancel(id, req, res);
    if (id && action === 'events') return this.#events(id, url, req, res);
    if (id && !action && req.method === 'GET') return this.#poll(id, url, req, res);
    return refuse(res, 404, 'not_found', 'no such path');
  }

  async #file(name, res) {
    res.writeHead(200, {
      'content-type': TYPES[extname(name)], 'cache-control': 'no-cache',
      'content-security-policy': "default-src 'self'; connect-src *",
    });
    res.end(await readFile(new URL(name, WEB)));
  }

  /** The fault for this request, or undefined if the fault was the whole response. */
  #admit(kind, req, res) {
    const fault = this.#takeFault(kind);
    this.requests.push({ kind, headers: req.headers, url: req.url });
    if (!fault.status) return fault;
    res.writeHead(fault.status, { 'content-type': 'application/json', ...fault.headers });
    res.end(fault.body ?? (fault.status === 204 ? '' : JSON.stringify({ error: { code: 'overloaded', message: 'no' } })));
    return undefined;
  }

  #find(id, res) {
    const generation = this.generations.get(id);
    if (!generation && this.purged.has(id)) refuse(res, 410, 'generation_expired', 'purged');
    else if (!generation) refuse(res, 404, 'generation_not_found', 'unknown');
    return generation;
  }

  async #create(req, res) {
    const body = JSON.parse(await readBody(req));
    const fault = this.#admit('create', req, res);
    if (!fault) return;
    const generation = this.#start(body, req.headers['idempotency-key']);
    if (fault.reset) return res.destroy();
    if (req.headers.accept === 'text/event-stream') return this.#sse(generation, readPosition('0'), fault, res);
    const { id, model, status, lastSeq } = generation;
    this.#body(res, fault, 201, { id, model, status, last_seq: lastSeq }, { location: `/v1/generations/${id}` });
  }

  #cancel(id, req, res) {
    const fault = this.#admit('cancel', req, res);
    const generation = fault && this.#find(id, res);
    if (!generation) return;
    generation.cancel();
    json(res, 200, { id, status: generation.status, last_seq: generation.lastSeq });
  }

  #events(id, url, req, res) {
    const fault = this.#admit('events', req, res);
    const generation = fault && this.#find(id, res);
    if (!generation) return;
    const cursor = req.headers['last-event-id'];
    if (cursor !== undefined && !cursor.startsWith(`${id}:`)) return refuse(res, 400, 'bad_cursor', cursor);
    const after = readPosition(cursor?.split(':')[1] ?? url.searchParams.get('after') ?? '0');
    const { lastSeq, epoch } = generation;
    if (generation.ended && after.seq === lastSeq && after.epoch === epoch) return void res.writeHead(204).end();
    return this.#sse(generation, after, fault, res);
  }

  async #sse(generation, after, fault, res) {
    const gone = new AbortController();
    res.on('close', () => gone.abort());
    res.writeHead(200, {
      'content-type': fault.contentType ?? 'text/event-stream', 'x-generation-id': generation.id,
      'cache-control': 'no-store, no-transform',
    });
    res.flushHeaders();
    if (fault.silent) return;
    const sender = new Sender({ hold: this.hold, ...fault }, (bytes) => res.write(bytes),
      (bytes) => res.write(bytes, () => res.destroy()), () => res.end());
    this.#talk({
      beat: (state) => sender.bytes(`: hb${state ? ` ${JSON.stringify(state)}` : ''}\n`),
      say: ({ type, ...said }) => sender.bytes(`: ${type} ${JSON.stringify(said)}\n`),
    }, gone.signal);
    if (fault.bom) sender.bytes('\ufeff');
    let sent = 0;
    const send = (event) => {
      const id = `${event.gen}:${event.seq}${event.epoch ? `.${event.epoch}` : ''}`;
      sender.bytes(`${event.seq === 1 ? 'retry: 100\n' : ''}id: ${id}\nevent: ${event.type}\n` +
        `data: ${JSON.stringify(event)}\n\n`);
      if (++sent === fault.goawayAfter) sender.bytes(': goaway {"reason":"drain","deadline_ms":0}\n');
    };
    const parts = generation.opened(after.seq);
    if (parts) {
      const attached = { type: 'attached', gen: generation.id, after: after.seq, last_seq: generation.lastSeq, parts };
      sender.bytes(`event: attached\ndata: ${JSON.stringify(attached)}\n\n`);
    }
    await follow(generation, firstOf(fault, after), gone.signal, (events) => sender.events(events, send));
    if (!sender.over && fault.silentAfter === undefined) sender.end();
  }

  async #poll(id, url, req, res) {
    const fault = this.#admit('poll', req, res);
    const generation = fault && this.#find(id, res);
    if (!generation) return;
    const after = readPosition(url.searchParams.get('after') ?? '0');
    const gone = new AbortController();
    res.on('close', () => gone.abort());
    const timer = setTimeout(() => gone.abort(), this.pollWaitMs);
    await generation.changed(after, gone.signal);
    clearTimeout(timer);
    if (fault.silent) return;
    const events = [];
    const sender = new Sender({ ...fault, cutAfter: undefined });
    sender.events(generation.after(firstOf(fault, after)), (event) => events.push(event));
    const { model, status, lastSeq } = generation;
    this.#body(res, fault, 200, { id, model, status, last_seq: lastSeq, events, parts: generation.opened(after.seq) });
  }

  // With content-length, so that a cut can be detected.
  #body(res, fault, status, body, headers = {}) {
    const bytes = Buffer.from(JSON.stringify(body));
    res.writeHead(status, {
      'content-type': fault.contentType ?? 'application/json', 'content-length': bytes.length, ...headers,
    });
    if (!(fault.cutAfter < bytes.length)) return res.end(bytes);
    if (fault.cutAfter === 0) res.flushHeaders();
    return res.write(bytes.subarray(0, fault.cutAfter), () => res.destroy());
  }

  // ---- WebSocket

  #upgrade(req, socket) {
    this.requests.push({ kind: 'ws', headers: req.headers, url: req.url });
    const fault = this.#takeFault('ws');
    if (fault.status) return socket.end(`HTTP/1.1 ${fault.status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`);
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      `Sec-WebSocket-Accept: ${acceptKey(req.headers['sec-websocket-key'])}\r\n` +
      `Sec-WebSocket-Protocol: ${fault.subprotocol ?? 'runnel.v1'}\r\n\r\n`);
    const gone = new AbortController();
    socket.on('close', () => gone.abort());
    const sender = new Sender(fault, (bytes) => socket.write(bytes),
      (bytes) => socket.write(bytes, () => socket.destroy()),
      () => socket.end(encodeFrame(8, closePayload(fault.closeCode ?? 1000), false)));
    const send = (frame) => sender.bytes(encodeFrame(1, Buffer.from(JSON.stringify(frame)), false));
    send({ type: 'hello', v: 1, max_streams: 32, heartbeat_s: 20, resume_ttl_s: 600 });
    socket.on('data', frameReader((opcode, payload) => {
      if (opcode === 8) return socket.end(encodeFrame(8, payload, false));
      if (opcode === 1) this.#command(JSON.parse(payload.toString()), send, sender, gone.signal);
    }));
  }

  #command(command, send, sender, signal) {
    this.requests.push({ kind: `ws.${command.type}`, command });
    const { fault } = sender;
    if (command.type === 'ping') return fault.silent || fault.deaf ? undefined : send({ type: 'pong', t: command.t });
    if (command.type === 'cancel') return fault.deaf ? undefined : this.generations.get(command.gen)?.cancel();
    if (fault.error) return send({ type: 'error', req: command.req, error: fault.error });
    if (command.type === 'generate') {
      const generation = this.#start(command.body, command.idempotency_key);
      if (fault.reset) return void sender.cut(Buffer.alloc(0));
      return this.#frames(generation, readPosition('0'), command.req, send, sender, signal);
    }
    if (command.type !== 'resume') return;
    const generation = this.generations.get(command.gen);
    if (!generation) {
      const [status, code] = this.purged.has(command.gen) ? [410, 'generation_expired'] : [404, 'generation_not_found'];
      return send({ type: 'error', req: command.req, error: { code, status, message: 'no' } });
    }
    const { id, status, lastSeq } = generation;
    if (fault.lateError) queueMicrotask(() => send({ type: 'error', ...fault.lateError }));
    const parts = generation.opened(command.after);
    send({ type: 'attached', req: command.req, gen: id, after: command.after, last_seq: lastSeq, status, parts });
    // A reader that has everything gets the terminal event again.
    const { after, epoch = 0 } = command;
    const repeat = generation.ended && after === lastSeq && epoch === generation.epoch;
    return this.#frames(generation, { seq: repeat ? after - 1 : after, epoch }, undefined, send, sender, signal);
  }

  async #frames(generation, after, req, send, sender, signal) {
    const { fault } = sender;
    if (fault.silent) return;
    this.#talk({ beat: (state) => send({ type: 'heartbeat', gen: generation.id, ...state }), say: send }, signal);
    let sent = 0;
    const sendEvent = (event) => {
      send(event.seq === 1 && req ? { ...event, req } : event);
      if (++sent === fault.goawayAfter) send({ type: 'goaway', reason: 'drain', deadline_ms: 5000 });
    };
    const more = await follow(generation, firstOf(fault, after), signal, (events) => sender.events(events, sendEvent));
    if (!more && !sender.over && (fault.endAfter !== undefined)) sender.end();
  }
}

const firstOf = ({ gapFirst }, after) => (gapFirst === undefined ? after : { seq: gapFirst, epoch: 0 });

/** Passes all events after a cursor to `deliver` as they are appended, until the end or until it returns false. */
async function follow(generation, after, signal, deliver) {
  for (let cursor = after; ; ) {
    await generation.changed(cursor, signal);
    if (signal.aborted) return false;
    const events = generation.after(cursor);
    if (events.length === 0) return true;
    cursor = { seq: events.at(-1).seq, epoch: generation.epoch };
    if (!deliver(events)) return false;
  }
}

async function readBody(req) {
  let text = '';
  for await (const chunk of req) text += chunk;
  return text;
}

function json(res, status, body) {
  res.writeHead(status, { 'content-type': 'application/json' });
  res.end(JSON.stringify(body));
}

const refuse = (res, status, code, message) => json(res, status, { error: { code, message, type: 'x', param: null } });

if (process.argv[1] && import.meta.url === new URL(`file://${process.argv[1]}`).href) {
  const port = Number(process.argv[process.argv.indexOf('--port') + 1]) || 8090;
  const server = await new FakeServer().listen(port);
  console.log(`listening on ${server.url}`);
}
