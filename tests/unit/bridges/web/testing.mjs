// Helpers for the tests of the browser library.
import assert from 'node:assert/strict';
import { attach, stream } from '../../../../bridges/web/runnel.js';
import { FakeGeneration } from './fake_log.mjs';
import { FakeServer } from './fake_server.mjs';
import { ClientWebSocket } from './fake_ws.mjs';

// Node 18 has it, but not as a global.
globalThis.crypto ??= (await import('node:crypto')).webcrypto;

// A bound that nothing here reaches, even on a busy machine.
const WAIT_MS = 60_000;

export const TRANSPORTS = ['sse', 'websocket', 'poll'];
export const READ_FAULT = { sse: 'events', websocket: 'ws', poll: 'poll' };

/** Records each backoff and ends it immediately. The watchdog's long timers wait for advance(). */
export class TestClock {
  time = 0;
  slept = [];
  #held = new Set();

  now = () => this.time;

  setTimer = (callback, ms) => {
    if (ms >= 10_000) {
      const timer = { callback, at: this.time + ms };
      this.#held.add(timer);
      return () => this.#held.delete(timer);
    }
    this.slept.push(ms);
    const handle = setImmediate(callback);
    return () => clearImmediate(handle);
  };

  advance(ms) {
    this.time += ms;
    for (const timer of [...this.#held]) {
      if (timer.at > this.time) continue;
      this.#held.delete(timer);
      timer.callback();
    }
  }
}

/** Time that only advance() moves. */
export class ManualClock {
  time = 0;
  /** Time that now() does not count, as on a machine that slept. */
  asleep = 0;
  #timers = new Set();

  now = () => this.time;
  wall = () => this.time + this.asleep;

  setTimer = (callback, ms) => {
    const timer = { callback, at: this.time + ms };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };

  /** Lets `ms` pass. Timers run at their time and in order, unless `late`: then all at the end, as after a sleep. */
  async advance(ms, { late = false } = {}) {
    const end = this.time + ms;
    if (late) this.time = end;
    for (;;) {
      const [next] = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at);
      if (!next) break;
      this.#timers.delete(next);
      this.time = Math.max(this.time, next.at);
      next.callback();
      await new Promise(setImmediate);
    }
    this.time = end;
    await new Promise(setImmediate);
  }

  /** Lets time pass until `condition` holds. */
  async passUntil(condition) {
    const deadline = performance.now() + WAIT_MS;
    while (!condition()) {
      if (performance.now() > deadline) assert.fail(`never: ${condition}`);
      await this.advance(250);
      await new Promise(setImmediate);
    }
  }
}

/** The parts of a window and its document that runnel.js uses. */
export class FakeWindow extends EventTarget {
  navigator = { onLine: true };
  document = Object.assign(new EventTarget(), { visibilityState: 'visible' });

  offline() {
    this.navigator.onLine = false;
    this.dispatchEvent(new Event('offline'));
  }

  online() {
    this.navigator.onLine = true;
    this.dispatchEvent(new Event('online'));
  }

  show(visibilityState) {
    this.document.visibilityState = visibilityState;
    this.document.dispatchEvent(new Event('visibilitychange'));
  }

  lifecycle(type) {
    this.document.dispatchEvent(new Event(type));
  }

  leave() {
    this.dispatchEvent(Object.assign(new Event('pagehide'), { persisted: true }));
  }

  comeBack() {
    this.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }));
  }
}

/** Resolves when `condition` holds; fails after WAIT_MS. */
export async function until(condition, what = String(condition)) {
  const deadline = performance.now() + WAIT_MS;
  while (!condition()) {
    if (performance.now() > deadline) assert.fail(`never: ${what}`);
    await new Promise(setImmediate);
  }
}

/** A server, a clock, and options that connect them. Closed when the test ends. */
export async function setUp(t, { clock = new TestClock() } = {}) {
  const server = await new FakeServer().listen();
  t.after(() => server.close());
  const options = (transport, more) => ({
    transport, baseUrl: server.url, WebSocket: ClientWebSocket, clock, random: () => 0.5, ...more,
  });
  return {
    server,
    clock,
    /** A generation that has ended. Its whole log is there, so no test waits. */
    ended: (words = 12) => server.add(new FakeGeneration().words(words).done()),
    running: (words = 0) => server.add(new FakeGeneration().words(words)),
    attach: (id, transport, more) => attach(id, options(transport, more)),
    stream: (request, transport, more) => stream(request, options(transport, more)),
  };
}

/** All events of a reader, with the error that ended it, if any. */
export async function collect(response) {
  const events = [];
  try {
    for await (const event of response) events.push(event);
    return { events };
  } catch (error) {
    return { events, error };
  }
}

/** Asserts order, no gap, no duplicate, the whole text, and how it ended. */
export async function assertWhole(response, generation, finishReason = 'stop') {
  const [{ events, error }, result] = await Promise.all([collect(response), response.result]);
  assert.equal(error, undefined);
  let last = 0;
  let text = '';
  for (const event of events) {
    if (event.type === 'gap') [last, text] = [event.snapshot.seq, event.snapshot.choices[0]?.text ?? ''];
    else {
      assert.equal(event.first_seq ?? event.seq, last + 1);
      last = event.seq;
      text += event.text ?? '';
    }
  }
  assert.equal(events.at(-1).type, 'done');
  assert.equal(last, generation.lastSeq);
  assert.equal(text, generation.choices[0] ?? '');
  assert.equal(result.text, text);
  assert.equal(result.verified, true);
  assert.deepEqual(result.finishReasons, [finishReason]);
  assert.equal(response.status, 'verified');
  return result;
}

/** Resolves when the reader has applied `count` events. */
export async function reached(response, count) {
  for await (const event of response) if (event.seq >= count) return;
}

export const rejection = (promise) => promise.then(
  () => assert.fail('it must not succeed'), (error) => error);
