// Life in a browser, over every transport: no network, sleep, servers that shut down or are full.
import assert from 'node:assert/strict';
import test from 'node:test';
import { FakeGeneration } from './fake_log.mjs';
import {
  assertWhole, collect, FakeWindow, ManualClock, READ_FAULT, reached, rejection, setUp, TRANSPORTS, until,
} from './testing.mjs';

const READS = new Set(['create', 'events', 'poll', 'ws']);

/** A reader in a fake window, with a clock that only the test moves. */
async function inWindow(t, transport, { words = 3, faults = [], ...more } = {}) {
  const clock = new ManualClock();
  const setup = await setUp(t, { clock });
  const window = new FakeWindow();
  const notices = [];
  const generation = setup.running(words);
  setup.server.faults = faults;
  const onNotice = (notice) => notices.push(notice);
  const response = setup.attach(generation.id, transport, { window, onNotice, ...more });
  t.after(() => response.close());
  const reads = () => setup.server.requests.filter(({ kind }) => READS.has(kind)).length;
  return {
    ...setup, clock, window, notices, generation, response, reads,
    /** Resolves when the reader has all events and waits for more. Polling does that in its next request. */
    waits: async () => {
      await reached(response, generation.lastSeq);
      await until(() => transport !== 'poll' || reads() > response.stats.reconnects + 1);
    },
    noticesOf: (type) => notices.filter((notice) => notice.type === type),
  };
}

/** A connection that delivers four events and then is silently dead. */
function dying(transport) {
  const on = READ_FAULT[transport];
  return transport === 'poll' ? [{ on }, { on, silent: true }] : [{ on, silentAfter: 4, deaf: true }];
}

for (const transport of TRANSPORTS) {
  const on = READ_FAULT[transport];

  test(`${transport}: offline, nothing is tried; back online, immediately`, async (t) => {
    const { server, clock, window, generation, response, reads, waits, noticesOf } = await inWindow(t, transport);
    await waits();
    window.offline();
    server.cut();
    await until(() => noticesOf('waiting').length === 1);
    const before = reads();
    // The first wait is a backoff. The second one is for the network.
    await clock.advance(5000);
    await until(() => noticesOf('waiting').length === 2);
    await clock.advance(20_000);
    assert.deepEqual([reads(), response.stats.reconnects], [before, 0]);
    assert.equal(noticesOf('waiting')[1].offline, true);
    assert.equal(response.status, 'reconnecting');
    generation.words(2).done();
    window.online();
    await assertWhole(response, generation);
    assert.deepEqual([noticesOf('offline').length, noticesOf('online').length], [1, 1]);
  });

  test(`${transport}: a browser that always reports offline is not trusted for long`, async (t) => {
    const { server, clock, window, generation, response, waits, noticesOf } = await inWindow(t, transport, { maxRetries: 1 });
    await waits();
    window.offline();
    for (let n = 1; n <= 3; n++) {
      server.faults = [{ on, cutAfter: 0 }];
      server.cut();
      // Two waits for each attempt: none of these failures counts.
      for (let waits = 2 * n - 1; waits <= 2 * n; waits++) {
        await until(() => noticesOf('waiting').length >= waits);
        await clock.advance(30_000);
      }
    }
    generation.done();
    await clock.passUntil(() => response.status === 'verified');
    await assertWhole(response, generation);
  });

  test(`${transport}: an open connection is read while the browser reports offline`, async (t) => {
    const { window, generation, response } = await inWindow(t, transport);
    await reached(response, 4);
    window.offline();
    generation.words(2).done();
    const { stats } = await assertWhole(response, generation);
    assert.equal(stats.reconnects, 0);
  });

  test(`${transport}: a probe detects a connection that died while the page was frozen`, async (t) => {
    const { clock, window, generation, response, waits } = await inWindow(t, transport, { faults: dying(transport) });
    await waits();
    window.lifecycle('freeze');
    generation.words(2).done();
    window.lifecycle('resume');
    await clock.advance(4999);
    assert.equal(response.status, 'streaming');
    await clock.advance(1);
    await until(() => response.status === 'reconnecting');
    await clock.passUntil(() => response.status === 'verified');
    await assertWhole(response, generation);
    assert.equal(response.stats.reconnects, 1);
  });

  test(`${transport}: a connection that survived while the page was hidden is kept`, async (t) => {
    const { clock, window, generation, response } = await inWindow(t, transport);
    await reached(response, 4);
    window.show('hidden');
    clock.time += 20_000;
    window.show('visible');
    generation.words(1);
    await reached(response, 5);
    await clock.advance(6000);
    generation.done();
    const { stats } = await assertWhole(response, generation);
    assert.equal(stats.reconnects, 0);
  });

  test(`${transport}: after a sleep, late timers lead to a probe of the connection`, async (t) => {
    for (const clockStood of [false, true]) {
      const { clock, generation, response, waits } = await inWindow(t, transport, { faults: dying(transport) });
      await waits();
      generation.words(2).done();
      if (clockStood) clock.asleep += 3_600_000;
      await clock.advance(clockStood ? 12_000 : 3_600_000, { late: true });
      assert.equal(response.status, 'streaming');
      await clock.advance(5000);
      await until(() => response.status === 'reconnecting');
      await clock.passUntil(() => response.status === 'verified');
      await assertWhole(response, generation);
      assert.equal(response.stats.reconnects, 1);
    }
  });

  test(`${transport}: a page in the back/forward cache holds no connection, and resumes`, async (t) => {
    const { clock, window, generation, response, reads } = await inWindow(t, transport);
    await reached(response, 4);
    window.leave();
    await until(() => response.status === 'reconnecting');
    const before = reads();
    generation.words(2);
    await clock.advance(600_000);
    assert.deepEqual([reads(), response.stats.reconnects], [before, 0]);
    window.comeBack();
    await reached(response, 6);
    generation.done();
    const { stats } = await assertWhole(response, generation);
    assert.equal(stats.reconnects, 1);
  });

  test(`${transport}: the return of the network does not shorten Retry-After`, async (t) => {
    const error = { code: 'rate_limited', message: 'slow down', status: 429, retry_after_ms: 8000 };
    const faults = transport === 'websocket' ? [{ on, error }]
      : [{ on, status: 429, headers: { 'retry-after': '8' }, body: JSON.stringify({ error }) }];
    const { clock, window, generation, response, reads, noticesOf } = await inWindow(t, transport, { faults });
    generation.done();
    await until(() => noticesOf('waiting').length === 1);
    assert.deepEqual([noticesOf('waiting')[0].ms, noticesOf('waiting')[0].error.code], [8125, 'rate_limited']);
    for (let n = 0; n < 3; n++) {
      window.online();
      await clock.advance(2500);
    }
    assert.deepEqual([reads(), response.stats.reconnects], [1, 0]);
    await clock.advance(500);
    const { stats } = await assertWhole(response, generation);
    assert.equal(stats.reconnects, 1);
  });

  test(`${transport}: 401, 403, 404, 410 and 422 are final`, async (t) => {
    const { server, attach, ended, clock } = await setUp(t);
    for (const status of [401, 403, 404, 410, 422]) {
      const error = { code: 'no_more', message: 'no', status };
      server.faults = [transport === 'websocket' ? { on, error } : { on, status, body: JSON.stringify({ error }) }];
      const failure = await rejection(attach(ended().id, transport).result);
      assert.deepEqual([failure.code, failure.status, failure.retryable], ['no_more', status, false]);
    }
    assert.deepEqual(clock.slept, []);
  });

  test(`${transport}: after goaway, the reader moves before the deadline`, async (t) => {
    if (transport === 'poll') return t.skip('polls do not stay connected');
    const { server, clock, generation, response } = await inWindow(t, transport);
    await reached(response, 4);
    server.goAway(4000);
    const bytes = response.stats.bytesReceived;
    generation.words(1);
    await reached(response, 5);
    assert.ok(response.stats.bytesReceived > bytes);
    await clock.advance(1999);
    assert.equal(response.stats.reconnects, 0);
    await clock.advance(1);
    await until(() => response.stats.reconnects === 1);
    generation.words(1).done();
    await assertWhole(response, generation);
  });

  test(`${transport}: heartbeats report progress until the first token`, async (t) => {
    const { server, generation, response, noticesOf } = await inWindow(t, transport, { words: 0 });
    await reached(response, 1);
    if (transport === 'poll') return t.skip('polls have no heartbeats');
    const tell = async (state, count) => {
      const before = response.stats.bytesReceived;
      server.beat(state);
      await until(() => response.stats.bytesReceived > before && noticesOf('progress').length === count);
      return response.progress;
    };
    assert.equal(await tell(undefined, 0), null);
    const queued = { stage: 'queued', queuePosition: 3, prefillShare: null };
    assert.deepEqual(await tell({ stage: 'queued', queue_position: 3 }, 1), queued);
    assert.deepEqual(await tell({ stage: 'queued', queue_position: 3 }, 1), queued);
    assert.deepEqual(await tell({ stage: 'prefill', prefill_share: 0.4 }, 2),
      { stage: 'prefill', queuePosition: null, prefillShare: 0.4 });
    const hostile = [
      { stage: 7 }, { stage: '<b>' }, { stage: 'x'.repeat(40) }, {}, [], { queue_position: 2 }, { stage: null },
    ];
    for (const state of hostile) assert.equal((await tell(state, 2)).stage, 'prefill');
    assert.deepEqual(await tell({ stage: 'decoding', queue_position: -1, prefill_share: 9 }, 3),
      { stage: 'decoding', queuePosition: null, prefillShare: null });
    generation.delta('a');
    await reached(response, 2);
    assert.equal(response.progress, null);
    await tell({ stage: 'decoding', prefill_share: 1 }, 3);
    generation.done();
    await assertWhole(response, generation);
  });

  test(`${transport}: a long prefill over connections that are cut does not exhaust the retries`, async (t) => {
    if (transport === 'poll') return t.skip('polls have no heartbeats');
    const { server, attach, running } = await setUp(t);
    const generation = running(0);
    const response = attach(generation.id, transport, { maxRetries: 2 });
    for (let n = 0; n < 8; n++) {
      const opened = () => server.requests.filter(({ kind }) => kind === (on === 'ws' ? 'ws.resume' : on)).length > n;
      await until(opened);
      const before = response.stats.bytesReceived;
      await until(() => (server.beat({ stage: 'prefill', prefill_share: n / 8 }), response.stats.bytesReceived > before + 20));
      server.cut();
      await until(() => response.stats.reconnects > n);
    }
    generation.words(2).done();
    await assertWhole(response, generation);
  });

  test(`${transport}: a second start after a retryable failure has another key`, async (t) => {
    const { server, stream } = await setUp(t);
    const generations = [new FakeGeneration().delta('so').failed(), new FakeGeneration().words(3).done()];
    server.onStart = () => generations[server.starts - 1];
    const error = await rejection(stream('why?', transport).result);
    assert.deepEqual([error.code, error.retryable], ['engine_failed', true]);
    const again = stream('why?', transport);
    await again.started;
    await assertWhole(again, generations[1]);
    assert.equal(server.starts, 2);
  });
}

test('a reader that has ended ignores the window', async (t) => {
  const { window, generation, response, notices } = await inWindow(t, 'sse');
  generation.done();
  await assertWhole(response, generation);
  const before = notices.length;
  window.offline();
  window.online();
  window.leave();
  window.comeBack();
  assert.equal(notices.length, before);
  assert.deepEqual((await collect(response)).events.length, generation.lastSeq);
});

test('hiding a tab for a moment costs no connection', async (t) => {
  const { clock, window, generation, response } = await inWindow(t, 'sse');
  await reached(response, 4);
  for (let n = 0; n < 5; n++) {
    window.show('hidden');
    await clock.advance(500);
    window.show('visible');
    await clock.advance(1500);
  }
  generation.done();
  assert.equal((await assertWhole(response, generation)).stats.reconnects, 0);
});

test('a full server that closes a socket is not contacted for a second', async (t) => {
  const { server, attach, ended, clock } = await setUp(t);
  for (const closeCode of [1013, 4429]) {
    server.faults = [{ on: 'ws', endAfter: 1, closeCode }];
    const generation = ended();
    await assertWhole(attach(generation.id, 'websocket'), generation);
    assert.equal(clock.slept.at(-1), 1125);
  }
});

test('a wrong content type is retried twice, and final the third time', async (t) => {
  const { server, attach, ended } = await setUp(t);
  const generation = ended();
  for (const [transport, kind] of [['sse', 'events'], ['poll', 'poll']]) {
    server.faults = [{ on: kind, contentType: 'text/html' }, { on: kind, contentType: 'text/html' }];
    const { stats } = await assertWhole(attach(generation.id, transport), generation);
    assert.equal(stats.reconnects, 2);
    for (const contentType of ['text/html', 'text/event-streams', 'text/plain; text/event-stream']) {
      server.faults = Array.from({ length: 3 }, () => ({ on: kind, contentType }));
      const error = await rejection(attach(generation.id, transport).result);
      assert.deepEqual([error.code, error.status, error.retryable], ['bad_content_type', 200, false]);
    }
  }
});
