// A TCP connection that can send any bytes and records the received bytes.
import { createConnection } from 'node:net';

const MAX_KEPT = 16 << 20;

/** Factor for all time limits, for sanitizers and busy machines. */
export const SLACK = Number(process.env.RUNNEL_SLACK ?? 1);

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Rejects unless `promise` settles within `ms`, multiplied by SLACK. */
export function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${ms * SLACK} ms`)), ms * SLACK);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Resolves with the value of `condition()` once it is truthy; rejects after `ms`, multiplied by SLACK. */
export async function until(ms, what, condition) {
  const deadline = performance.now() + ms * SLACK;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > deadline) throw new Error(`${what}: not within ${ms * SLACK} ms`);
    await pause(20);
  }
}

/** The complete HTTP responses at the front of `buffer`, as {status, version, headers, body}. */
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

  /** Connects to `address`, host:port. Resolves once the connection is open. */
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

  /** Sends as fast as the other end reads. Resolves with false if the connection ends before all bytes are sent. */
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

  /** Resolves with true once `condition(this)` holds, with false if the other end closes or `ms` times SLACK pass first. */
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

  /** Resolves with the ms from opening to the other end's close; undefined if it does not close within `ms`. */
  async closed(ms) {
    await this.wait(({ ended }) => ended, ms);
    return this.ended ? this.endedAt - this.openedAt : undefined;
  }

  responses() {
    return responsesOf(this.received);
  }

  /** Sends one byte of `bytes` every `everyMs`, in a loop, until the connection is over or `stopped()`. */
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
