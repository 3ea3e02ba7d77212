// What the tests of the client library share.
import assert from 'node:assert/strict';
import { attach, stream } from '../../../bridges/web/runnel.js';
import { FakeGeneration } from './fake_log.mjs';
import { FakeServer } from './fake_server.mjs';
import { ClientWebSocket } from './fake_ws.mjs';

// Node 18 has it, but not as a global.
globalThis.crypto ??= (await import('node:crypto')).webcrypto;

export const TRANSPORTS = ['sse', 'websocket', 'poll'];
export const READ_FAULT = { sse: 'events', websocket: 'ws', poll: 'poll' };

/** Backoff passes at once and is written down; the watchdog's long timers wait for advance(). */
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

/** A server, a clock, and options that join them; all closed when the test ends. */
export async function setUp(t) {
  const server = await new FakeServer().listen();
  t.after(() => server.close());
  const clock = new TestClock();
  const options = (transport, more) => ({
    transport, baseUrl: server.url, WebSocket: ClientWebSocket, clock, random: () => 0.5, ...more,
  });
  return {
    server,
    clock,
    /** A generation that has ended: everything a reader needs is there, so no test waits. */
    ended: (words = 12) => server.add(new FakeGeneration().words(words).done()),
    running: (words = 0) => server.add(new FakeGeneration().words(words)),
    attach: (id, transport, more) => attach(id, options(transport, more)),
    stream: (request, transport, more) => stream(request, options(transport, more)),
  };
}

/** Everything an answer yields, with the error that ended it, if one did. */
export async function collect(answer) {
  const events = [];
  try {
    for await (const event of answer) events.push(event);
    return { events };
  } catch (error) {
    return { events, error };
  }
}

/** Order, no gap, no duplicate, the whole text, and how it ended. */
export async function assertWhole(answer, generation, finishReason = 'stop') {
  const [{ events, error }, result] = await Promise.all([collect(answer), answer.result]);
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
  assert.equal(answer.status, 'verified');
  return result;
}

/** Resolves when the answer has applied `count` events. */
export async function reached(answer, count) {
  for await (const event of answer) if (event.seq >= count) return;
}

export const rejection = (promise) => promise.then(
  () => assert.fail('it must not succeed'), (error) => error);
