// Events over a WebSocket.
import { utf8 } from './crc32.js';
import { broken, refusal, RunnelError } from './errors.js';
import { parseEvent } from './events.js';

/** Messages of a socket that were not taken yet, and the error that ended it. */
class Inbox {
  #items = [];
  #error;
  #wake = (_value) => {};

  push(item) {
    this.#items.push(item);
    this.#wake(undefined);
  }

  fail(error) {
    this.#error ??= error;
    this.#wake(undefined);
  }

  async next() {
    while (this.#items.length === 0) {
      if (this.#error) throw this.#error;
      await new Promise((resolve) => (this.#wake = resolve));
    }
    return this.#items.shift();
  }
}

const SUBPROTOCOL = 'runnel.v1';
const OPEN = Symbol('open');
// Unsupported data, policy, message too big, unauthenticated, forbidden: the next connection would end the same way.
const FATAL_CLOSE = new Set([1003, 1008, 1009, 4401, 4403]);
// Try again later, too many streams: a close frame cannot carry a delay, so this is the least.
const BUSY_CLOSE = new Set([1013, 4429]);
const BUSY_MS = 1000;

export class WebSocketConnection {
  #socket;
  #inbox = new Inbox();

  constructor(view) {
    this.view = view;
  }

  async *read() {
    const { view } = this;
    const abort = () => this.#inbox.fail(view.signal.reason);
    view.signal.addEventListener('abort', abort);
    try {
      this.#open();
      await this.#inbox.next();
      await this.#attach();
      for (;;) {
        const event = this.#event(await this.#inbox.next());
        if (event) yield event;
      }
    } finally {
      view.signal.removeEventListener('abort', abort);
      this.#close();
    }
  }

  /** True if the socket took the command. If it breaks before the server reads the command, the next one repeats it. */
  sendCancel(id) {
    return this.#send({ type: 'cancel', gen: id });
  }

  /** Browsers hide the server's ping frames, so only a pong shows that the peer is alive while a model thinks. */
  ping() {
    this.#send({ type: 'ping', t: Math.round(this.view.clock.now()) });
  }

  #open() {
    const { view } = this;
    let socket;
    try {
      socket = new view.WebSocket(view.wsUrl, [SUBPROTOCOL]);
    } catch (cause) {
      throw new RunnelError('bad_url', `cannot open ${view.wsUrl}`, { cause });
    }
    this.#socket = socket;
    socket.onopen = () => this.#inbox.push(OPEN);
    socket.onmessage = ({ data }) => this.#inbox.push(data);
    // A close with its code follows every error.
    socket.onerror = () => {};
    socket.onclose = ({ code, reason }) => {
      const message = `the socket was closed with ${code}${reason ? `: ${reason}` : ''}`;
      this.#inbox.fail(new RunnelError(`ws_${code}`, message, {
        retryable: !FATAL_CLOSE.has(code), retryAfterMs: BUSY_CLOSE.has(code) ? BUSY_MS : undefined,
      }));
    };
  }

  #close() {
    const socket = this.#socket;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    try {
      socket.close(1000);
    } catch {
      // A socket that never opened.
    }
  }

  #send(frame) {
    if (this.#socket?.readyState !== 1) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  async #attach() {
    const { view } = this;
    if (this.#socket.protocol !== SUBPROTOCOL) {
      throw new RunnelError('bad_subprotocol', `the server does not support the subprotocol ${SUBPROTOCOL}`);
    }
    const token = await view.token();
    if (token) this.#send({ type: 'auth', token });
    if (view.id) {
      const { id: gen, after, epoch } = view;
      this.#send({ type: 'resume', req: 'c1', gen, after, ...(epoch !== 0 && { epoch }) });
      if (view.cancelWanted) this.sendCancel(view.id);
    } else {
      this.#send({ type: 'generate', req: 'c1', body: view.request, idempotency_key: view.idempotencyKey });
    }
  }

  /** The event in a frame, or undefined if the frame is about the connection. */
  #event(data) {
    const { view } = this;
    if (typeof data !== 'string') throw broken('bad_event', 'a binary frame');
    view.received(utf8.encode(data).length);
    const frame = parseEvent(data);
    if (frame.type === 'error') return this.#refused(frame);
    if (frame.type === 'goaway') return void view.leaveSoon(frame);
    if (frame.type === 'hello' || frame.type === 'pong') return undefined;
    if (typeof frame.gen !== 'string' || (view.id && frame.gen !== view.id)) return undefined;
    view.opened();
    view.learnId(frame.gen);
    if (frame.type === 'heartbeat') return void view.heartbeat(frame);
    return frame;
  }

  // An error without `req` is about this stream after its first reply, about its cancel, or about the connection.
  #refused({ req, gen, error }) {
    const ours = (req === undefined || req === 'c1') && (gen === undefined || !this.view.id || gen === this.view.id);
    if (!ours) return undefined;
    throw refusal(error, error?.status ?? 400, { retryAfterMs: error?.retry_after_ms });
  }
}
