// The detector of buffering proxies: fires for every kind of buffering, and for nothing that resembles it.
import assert from 'node:assert/strict';
import test from 'node:test';
import { BufferingDetector } from '../../../../bridges/web/runnel/buffering.js';
import { FakeGeneration } from './fake_log.mjs';
import { assertWhole, FakeWindow, ManualClock, reached, setUp, until } from './testing.mjs';

/** Numbers from 0 to 1, the same for the same seed. */
function randomFrom(seed) {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** A log as { ms, type, seq }: started, `count` deltas `everyMs` apart after `firstMs`, done. */
function log(count, everyMs, firstMs = 200) {
  const events = [{ type: 'started', seq: 1, ms: 0 }];
  for (let n = 0; n < count; n++) events.push({ type: 'delta', seq: n + 2, ms: Math.round(firstMs + n * everyMs) });
  return [...events, { type: 'done', seq: count + 2, ms: Math.round(firstMs + count * everyMs) }];
}

/** Each event of a log with its arrival, from `arrive(event, index)`, in order. */
function journey(events, arrive) {
  let last = 0;
  return events.map((event, index) => ({ event, at: (last = Math.max(last, arrive(event, index))) }));
}

/** The index of the event at which the detector fired with the delay that it reports, or null. */
function firedAt(steps, { fresh = true, openedAt = 0, disturbedAt = [] } = {}) {
  const clock = { time: openedAt, now: () => clock.time };
  const detector = new BufferingDetector(clock, { fresh });
  for (const [index, { event, at }] of steps.entries()) {
    if (disturbedAt.includes(index)) detector.disturb();
    clock.time = at;
    const heldMs = detector.event(event);
    if (heldMs > 0) return { index, heldMs };
  }
  return null;
}

/** A proxy that forwards when it has `size` events, and at the end. */
function heaped(events, size, delayMs = 30) {
  return journey(events, (_event, index) => {
    const last = Math.min(events.length - 1, Math.ceil((index + 1) / size) * size - 1);
    return events[last].ms + delayMs;
  });
}

test('buffering: a proxy that forwards full buffers is detected with the fourth', () => {
  for (const [everyMs, size] of [[50, 30], [33, 30], [20, 40], [100, 8], [15, 60]]) {
    const fired = firedAt(heaped(log(400, everyMs), size));
    assert.ok(fired, `${size} events, one in ${everyMs} ms`);
    assert.ok(fired.index <= 3 * size, `only at ${fired.index}`);
    assert.ok(Math.abs(fired.heldMs - size * everyMs) < 0.2 * size * everyMs + 100, `${fired.heldMs} ms`);
  }
});

test('buffering: a reader that attached later detects it too', () => {
  const steps = heaped(log(400, 50), 30).map(({ event, at }) => ({ event, at: Math.max(at, 6000) }));
  const fired = firedAt(steps, { fresh: false, openedAt: 5900 });
  assert.ok(fired && fired.index <= 120 + 3 * 30 + 30, JSON.stringify(fired));
});

test('buffering: a response that arrives in one or two pieces at its end was held back', () => {
  for (const [count, size] of [[60, 999], [60, 45], [60, 58], [30, 999]]) {
    const fired = firedAt(heaped(log(count, 60), size));
    assert.equal(fired?.index, count + 1, `${count} in heaps of ${size}`);
  }
});

test('buffering: a single piece that is late, after a sleep, or of an old generation proves nothing', () => {
  const events = log(60, 60);
  const end = events.at(-1).ms;
  assert.equal(firedAt(journey(events, () => end + 60_000)), null);
  assert.equal(firedAt(journey(events, () => end + 30), { disturbedAt: [0] }), null);
  assert.equal(firedAt(journey(events, () => 90), { fresh: false }), null);
  assert.equal(firedAt(journey(events, () => 2900), { fresh: false }), null);
});

test('buffering: a steady stream is not buffered, however fast, far and uneven', () => {
  for (let seed = 1; seed <= 5; seed++) {
    const random = randomFrom(seed);
    for (const everyMs of [5, 10, 20, 33, 50, 100, 125, 200, 500]) {
      for (const delayMs of [2, 80, 1500]) {
        for (const jitterMs of [1, 30, 250]) {
          const steps = journey(log(200, everyMs), ({ ms }) => ms + delayMs + random() * jitterMs);
          assert.equal(firedAt(steps), null, `seed ${seed}: every ${everyMs} ms, ${delayMs} + ${jitterMs} ms late`);
        }
      }
    }
  }
});

test('buffering: a network that is too slow, or just fast enough, does not buffer', () => {
  // A segment holds ten events and is sent after the one before it.
  for (const everyMs of [20, 50, 100]) {
    for (const load of [1, 1.05, 1.5, 3]) {
      const events = log(300, everyMs);
      const segmentMs = 10 * everyMs * load;
      let freeAt = 0;
      const steps = journey(events, (_event, index) => {
        if (index % 10 === 0) {
          const ready = events[Math.min(index + 9, events.length - 1)].ms;
          freeAt = Math.max(freeAt, ready) + segmentMs;
        }
        return freeAt + 40;
      });
      const early = events.slice(0, 4).map((event) => ({ event, at: event.ms + 40 }));
      assert.equal(firedAt([...early, ...steps.slice(4)]), null, `every ${everyMs} ms, ${load} of what it can carry`);
    }
  }
});

test('buffering: a network that stalls now and then does not buffer', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = randomFrom(seed);
    let stalledUntil = 0;
    const steps = journey(log(400, 50), ({ ms }) => {
      if (random() < 0.02) stalledUntil = ms + 300 + random() * 1500;
      return Math.max(ms + 40, stalledUntil);
    });
    assert.equal(firedAt(steps), null, `seed ${seed}`);
  }
});

test('buffering: a fast model is not buffered: its tokens are generated as close as they arrive', () => {
  assert.equal(firedAt(journey(log(200, 0.1), () => 260)), null);
  // Ten together, twice a second, as in speculative decoding.
  const events = log(200, 0).map((event, index) => ({ ...event, ms: Math.floor(index / 10) * 500 }));
  assert.equal(firedAt(journey(events, ({ ms }) => ms + 20)), null);
});

test('buffering: catching up after a resume is not buffering, in one heap, in several, or merged', () => {
  const events = log(400, 50);
  const live = ({ ms }) => Math.max(ms, 10_000) + 20;
  assert.equal(firedAt(journey(events, live), { fresh: false, openedAt: 9950 }), null);
  const inFive = journey(events, (event, index) => (event.ms < 10_000 ? 10_000 + Math.floor(index / 40) * 300 : event.ms + 20));
  assert.equal(firedAt(inFive, { fresh: false, openedAt: 9950 }), null);
  // One merged event per second, for a reader that always lags.
  const merged = [];
  for (let n = 0; n < 20; n++) merged.push({ type: 'delta', first_seq: n * 20 + 2, seq: n * 20 + 21, ms: n * 1000 + 999 });
  assert.equal(firedAt(journey(merged, ({ ms }) => ms + 30)), null);
});

test('buffering: a tab that sleeps repeatedly is not buffered', () => {
  const events = log(600, 50);
  const starts = [60, 120, 180, 240, 300];
  const steps = journey(events, ({ ms }, index) => {
    const slept = starts.find((start) => index >= start && index < start + 40);
    return slept === undefined ? ms + 20 : events[slept + 40].ms + 20;
  });
  assert.equal(firedAt(steps, { disturbedAt: starts }), null);
  // A tab that is shown in between, without lifecycle events.
  assert.equal(firedAt(steps), null);
});

test('buffering: events without times prove nothing', () => {
  const steps = heaped(log(400, 50), 30).map(({ event: { type, seq }, at }) => ({ event: { type, seq }, at }));
  assert.equal(firedAt(steps), null);
  for (const ms of ['12', NaN, -1, null, {}]) {
    assert.equal(firedAt(steps.map(({ event, at }) => ({ event: { ...event, ms }, at }))), null);
  }
});

/** Appends 20 tokens together once per second, with times that are spread evenly. */
async function heapBySecond(clock, generation, response, heaps) {
  for (let heap = 0; heap < heaps; heap++) {
    addHeap(clock, generation);
    await reached(response, generation.lastSeq);
  }
}

function addHeap(clock, generation) {
  clock.time += 1000;
  for (let n = 0; n < 20; n++) generation.delta(' x', 0, { ms: clock.time - 950 + n * 50 });
}

for (const [transport, offer] of [['sse', 'websocket'], ['websocket', 'poll']]) {
  test(`${transport}: held back, it sends one notice and offers ${offer}`, async (t) => {
    const clock = new ManualClock();
    const { attach, running } = await setUp(t, { clock });
    const generation = running();
    const notices = [];
    const response = attach(generation.id, transport, { onNotice: (notice) => notices.push(notice), window: new FakeWindow() });
    await reached(response, 1);
    await heapBySecond(clock, generation, response, 9);
    assert.deepEqual(notices, [{ type: 'buffered', transport, offer, cause: 'bursts', heldMs: 950 }]);
    assert.equal(response.transport, transport);
    generation.done();
    await assertWhole(response, generation);
  });

  test(`${transport}: held back, it switches to ${offer} if allowed, without losing a token`, async (t) => {
    const clock = new ManualClock();
    const { attach, running } = await setUp(t, { clock });
    const generation = running();
    const response = attach(generation.id, transport, { onBuffered: 'switch', window: new FakeWindow() });
    await reached(response, 1);
    await heapBySecond(clock, generation, response, 5);
    await until(() => response.transport === offer);
    generation.done();
    const { stats } = await assertWhole(response, generation);
    assert.deepEqual([stats.switches, stats.reconnects], [1, 0]);
  });
}

test('poll: batches are not buffering', async (t) => {
  const clock = new ManualClock();
  const { attach, running } = await setUp(t, { clock });
  const generation = running();
  const notices = [];
  const response = attach(generation.id, 'poll', { onNotice: (notice) => notices.push(notice) });
  await reached(response, 1);
  await heapBySecond(clock, generation, response, 9);
  generation.done();
  await assertWhole(response, generation);
  assert.deepEqual(notices, []);
});

test('SSE: a WebSocket that was chosen automatically and does not open is replaced by polling', async (t) => {
  const clock = new ManualClock();
  const { server, attach, running } = await setUp(t, { clock });
  server.faults = [{ on: 'ws', status: 403 }, { on: 'ws', status: 403 }, { on: 'ws', status: 403 }];
  const generation = running();
  const response = attach(generation.id, 'sse', { onBuffered: 'switch' });
  await reached(response, 1);
  await heapBySecond(clock, generation, response, 3);
  addHeap(clock, generation);
  generation.done();
  await clock.passUntil(() => response.status === 'verified');
  await assertWhole(response, generation);
  assert.equal(response.transport, 'poll');
  assert.equal(server.faults.length, 1);
});

test('SSE: a transport that the caller chose is kept although it does not open', async (t) => {
  const { server, attach, running } = await setUp(t);
  server.faults = Array.from({ length: 5 }, () => ({ on: 'ws', status: 502 }));
  const generation = running(2);
  const response = attach(generation.id, 'sse', { onBuffered: 'switch' });
  await reached(response, 3);
  response.switchTransport('websocket');
  generation.done();
  await assertWhole(response, generation);
  assert.equal(response.transport, 'websocket');
});

test('SSE: two connections without a byte mean that a proxy waits for the end', async (t) => {
  const clock = new ManualClock();
  const { server, attach, running } = await setUp(t, { clock });
  server.faults = [{ on: 'events', silent: true }, { on: 'events', silent: true }];
  const generation = running(2);
  const notices = [];
  const onNotice = (notice) => notice.type === 'buffered' && notices.push(notice);
  const response = attach(generation.id, 'sse', { onBuffered: 'switch', onNotice });
  await clock.passUntil(() => response.transport === 'websocket' && response.status === 'streaming');
  assert.deepEqual(notices, [{ type: 'buffered', transport: 'sse', offer: 'websocket', cause: 'silence', heldMs: null }]);
  generation.done();
  await assertWhole(response, generation);
});

test('SSE: a start whose whole response is held back sends the notice before it ends', async (t) => {
  const clock = new ManualClock();
  const { server, stream } = await setUp(t, { clock });
  const notices = [];
  server.onStart = () => {
    const generation = new FakeGeneration();
    generation.events[0].ms = 0;
    for (let n = 0; n < 60; n++) generation.delta(' x', 0, { ms: n * 50 });
    generation.done();
    generation.events.at(-1).ms = 3000;
    // Nothing passes while the model runs.
    clock.time += 3000;
    return generation;
  };
  const response = stream('why?', 'sse', { onNotice: (notice) => notices.push([notice.type, response.status]) });
  await response.result;
  assert.deepEqual(notices, [['buffered', 'streaming']]);
});
