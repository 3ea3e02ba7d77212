// A TCP connection that may send anything, and sees what comes back byte by byte.
import { createConnection } from 'node:net';

const MAX_KEPT = 16 << 20;

/** How much longer everything may take: under a sanitizer, or on a machine with other work. */
export const SLACK = Number(process.env.RUNNEL_SLACK ?? 1);

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Rejects unless `promise` settles within `ms`, times the slack. */
export function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${ms * SLACK} ms`)), ms * SLACK);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Resolves once `condition()` is truthy, with its value; rejects after `ms`, times the slack. */
export async function until(ms, what, condition) {
  const deadline = performance.now() + ms * SLACK;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > deadline) throw new Error(`${what}: not within ${ms * SLACK} ms`);
    await pause(20);
  }
}

/** The whole HTTP responses at the front of `buffer`, as {status, version, headers, body}. */
export function responsesOf(buffer) {
  const responses = [];
  let rest = buffer;
  for (;;) {
    const end = rest.indexOf('\r\n\r\n');
    if (end < 0) return responses;
    const [first, ...lines] = rest.subarray(0, end).toString('latin1').split('\r\n');
    const [, version, status] = /^HTTP\/(1\.[01]) (\d{3}) /.exec(first) ?? [];
    if (status === undefined) throw new Error(`not a response: ${first.slice(0, 100)}`);
    const headers = Object.fromEntries(lines.map((line) => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    }));
    const length = Number(headers['content-length'] ?? 0);
    const body = rest.subarray(end + 4, end + 4 + length);
    if (body.length < length) return responses;
    responses.push({ status: Number(status), version, headers, body: body.toString() });
    rest = rest.subarray(end + 4 + length);
  }
}

export class Connection {
  received = Buffer.alloc(0);
  ended = false;
  #waiting = new Set();

  /** To `address`, host:port. Resolves once it is open. */
  static open(address) {
    const [host, port] = address.split(':');
    return new Promise((resolve, reject) => {
      const socket = createConnection({ host, port: Number(port), allowHalfOpen: true });
      socket.once('error', reject);
      socket.once('connect', () => resolve(new Connection(socket)));
    });
  }

  constructor(socket) {
    this.socket = socket;
    this.openedAt = performance.now();
    socket.setNoDelay(true);
    socket.removeAllListeners('error');
    socket.on('error', () => this.#end());
    socket.on('end', () => this.#end());
    socket.on('close', () => this.#end());
    socket.on('data', (bytes) => {
      if (this.received.length < MAX_KEPT) this.received = Buffer.concat([this.received, bytes]);
      this.#wake();
    });
  }

  #end() {
    this.endedAt ??= performance.now();
    this.ended = true;
    this.#wake();
  }

  #wake() {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  /** Sends as fast as the other end takes it. Resolves false if the connection is over before all is sent. */
  async send(bytes) {
    if (this.ended || this.socket.destroyed) return false;
    if (!this.socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes)) {
      while (!this.ended && this.socket.writableLength > 0) {
        await Promise.race([new Promise((resolve) => this.socket.once('drain', resolve)), this.changed()]);
      }
    }
    return !this.ended;
  }

  /** Resolves at the next byte received, or the end. */
  changed() {
    return new Promise((resolve) => this.#waiting.add(resolve));
  }

  /** Resolves true once `condition(this)` holds, false if the other end closes or `ms` (times the slack) pass before. */
  async wait(condition, ms) {
    const deadline = performance.now() + ms * SLACK;
    while (!condition(this)) {
      const left = deadline - performance.now();
      if (this.ended || left <= 0) return false;
      let timer;
      await Promise.race([this.changed(), new Promise((resolve) => (timer = setTimeout(resolve, left)))]);
      clearTimeout(timer);
    }
    return true;
  }

  /** Resolves with the time from opening to the other end's close in ms; undefined if it does not come within `ms`. */
  async closed(ms) {
    await this.wait(({ ended }) => ended, ms);
    return this.ended ? this.endedAt - this.openedAt : undefined;
  }

  responses() {
    return responsesOf(this.received);
  }

  /** One byte of `bytes` each `everyMs` until they are gone, the connection is over or `stopped()`. */
  async drip(bytes, everyMs, stopped = () => false) {
    for (let i = 0; !this.ended && !stopped(); i = (i + 1) % bytes.length) {
      if (!(await this.send(bytes.slice(i, i + 1)))) return;
      await Promise.race([pause(everyMs), this.wait(({ ended }) => ended, everyMs)]);
    }
  }

  destroy() {
    this.socket.destroy();
  }
}
