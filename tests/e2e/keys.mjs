// Starts with idempotency keys, for tests that count the generations which they begin.
import assert from 'node:assert/strict';
import { stream } from '../../bridges/web/runnel.js';
import { ClientWebSocket } from '../unit/bridges/web/fake_ws.mjs';

// Error codes that a start may get; each means that the same start may be retried.
const RETRYABLE = new Set(['replica_unreachable', 'idempotency_key_in_use', 'service_unreachable', 'timeout']);
const BOUND_MS = 40_000;

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// So long that it runs until it is cut: a key must not become free because its generation has ended.
const REQUEST = {
  prompt: 'go', max_tokens: 1000, seed: 7, detach: { cancel_after_ms: null },
  metadata: { 'scripted.tokens': '1000', 'scripted.tokens_per_second': '2' },
};

/** Idempotency keys that are sent through several bridges and both transports, and the ids that they lead to. */
export class Keys {
  refusals = new Map();
  accepted = 0;
  #ids = new Map();

  constructor(runnel) {
    this.runnel = runnel;
    this.ways = runnel.urls.length + 1;
  }

  /** Sends `key` by one of four ways until the response has an id. */
  async send(key, way) {
    const deadline = Date.now() + BOUND_MS;
    for (;;) {
      const { id, code, status } = way % this.ways === this.ways - 1 ? await this.#overWebSocket(key) : await this.#overHttp(key, way);
      if (id) {
        this.accepted++;
        if (!this.#ids.has(key)) this.#ids.set(key, new Set());
        return void this.#ids.get(key).add(id);
      }
      assert.ok(RETRYABLE.has(code), `${key}: ${status} ${code}`);
      this.refusals.set(code, (this.refusals.get(code) ?? 0) + 1);
      assert.ok(Date.now() < deadline, `${key} was rejected until the deadline: ${code}`);
      await pause(200);
    }
  }

  async #overHttp(key, way) {
    const response = await fetch(`${this.runnel.urls[way % this.ways]}/v1/generations`, {
      method: 'POST', headers: { 'content-type': 'application/json', 'idempotency-key': key }, body: JSON.stringify(REQUEST),
    });
    const { id, error } = await response.json();
    if (error) assert.ok(response.headers.get('retry-after') || response.status === 504, `${error.code} without retry-after`);
    return { id, code: error?.code, status: response.status };
  }

  async #overWebSocket(key) {
    const reader = stream(REQUEST, {
      baseUrl: this.runnel.url, wsUrl: this.runnel.wsUrl, transport: 'websocket', WebSocket: ClientWebSocket,
      idempotencyKey: key, maxRetries: 0,
    });
    reader.result.catch(() => {});
    try {
      return { id: await reader.started };
    } catch (error) {
      const cause = error.cause ?? error;
      return { code: cause.code, status: cause.status };
    } finally {
      reader.close();
    }
  }

  /** The generations of all keys; each key must have exactly one. */
  ids() {
    const twice = [...this.#ids].filter(([, ids]) => ids.size !== 1);
    assert.deepEqual(twice.map(([key, ids]) => [key, ...ids]), []);
    return [...this.#ids.values()].map((ids) => [...ids][0]);
  }

  idOf(key) {
    return [...this.#ids.get(key)];
  }

  forget(key) {
    this.#ids.delete(key);
  }
}

export const named = (prefix, count) => Array.from({ length: count }, (_, i) => `${prefix}-${i}`);
export const sendAll = (keys, names, way) => Promise.all(names.map((name, i) => keys.send(name, i + way)));
