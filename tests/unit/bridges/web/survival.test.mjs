// What a reader goes through in a browser, over every transport: no network, sleep, servers that go and that are full.
import assert from 'node:assert/strict';
import test from 'node:test';
import { FakeGeneration } from './fake_log.mjs';
import {
  assertWhole, collect, FakeWindow, ManualClock, READ_FAULT, reached, rejection, setUp, TRANSPORTS, until,
} from './testing.mjs';

const READS = new Set(['create', 'events', 'poll', 'ws']);

/** A reader in a window of its own, and time that stands still. */
async function inWindow(t, transport, { words = 3, faults = [], ...more } = {}) {
  const clock = new ManualClock();
  const setup = await setUp(t, { clock });
  const window = new FakeWindow();
  const notices = [];
  const generation = setup.running(words);
  setup.server.faults = faults;
  const onNotice = (notice) => notices.push(notice);
  const answer = setup.attach(generation.id, transport, { window, onNotice, ...more });
  t.after(() => answer.close());
  const reads = () => setup.server.requests.filter(({ kind }) => READS.has(kind)).length;
  return {
    ...setup, clock, window, notices, generation, answer, reads,
    /** Resolves when it has all there is and waits for more, which polling does in its next request. */
    waits: async () => {
      await reached(answer, generation.lastSeq);
      await until(() => transport !== 'poll' || reads() > answer.stats.reconnects + 1);
    },
    told: (type) => notices.filter((notice) => notice.type === type),
  };
}

/** A connection that gives the first four events and then is dead without a word. */
function dying(transport) {
  const on = READ_FAULT[transport];
  return transport === 'poll' ? [{ on }, { on, silent: true }] : [{ on, silentAfter: 4, deaf: true }];
}

for (const transport of TRANSPORTS) {
  const on = READ_FAULT[transport];

  test(`${transport}: without a network nothing is tried, and with it again at once`, async (t) => {
    const { server, clock, window, generation, answer, reads, waits, told } = await inWindow(t, transport);
    await waits();
    window.offline();
    server.cut();
    await until(() => told('waiting').length === 1);
    const before = reads();
    // The first wait is a backoff; then it is seen that there is no network.
    await clock.advance(5000);
    await until(() => told('waiting').length === 2);
    await clock.advance(20_000);
    assert.deepEqual([reads(), answer.stats.reconnects], [before, 0]);
    assert.equal(told('waiting')[1].offline, true);
    assert.equal(answer.status, 'reconnecting');
    generation.words(2).done();
    window.online();
    await assertWhole(answer, generation);
    assert.deepEqual([told('offline').length, told('online').length], [1, 1]);
  });

  test(`${transport}: a browser that says offline for ever is not believed for ever`, async (t) => {
    const { server, clock, window, generation, answer, waits, told } = await inWindow(t, transport, { maxRetries: 1 });
    await waits();
    window.offline();
    for (let n = 1; n <= 3; n++) {
      server.faults = [{ on, cutAfter: 0 }];
      server.cut();
      // Two waits for each try: none of these failures is counted against the server.
      for (let waits = 2 * n - 1; waits <= 2 * n; waits++) {
        await until(() => told('waiting').length >= waits);
        await clock.advance(30_000);
      }
    }
    generation.done();
    await clock.passUntil(() => answer.status === 'verified');
    await assertWhole(answer, generation);
  });

  test(`${transport}: read on while the browser says offline, as long as it can be`, async (t) => {
    const { window, generation, answer } = await inWindow(t, transport);
    await reached(answer, 4);
    window.offline();
    generation.words(2).done();
    const { stats } = await assertWhole(answer, generation);
    assert.equal(stats.reconnects, 0);
  });

  test(`${transport}: a connection that died while the page was frozen is found by a probe`, async (t) => {
    const { clock, window, generation, answer, waits } = await inWindow(t, transport, { faults: dying(transport) });
    await waits();
    window.lifecycle('freeze');
    generation.words(2).done();
    window.lifecycle('resume');
    await clock.advance(4999);
    assert.equal(answer.status, 'streaming');
    await clock.advance(1);
    await until(() => answer.status === 'reconnecting');
    await clock.passUntil(() => answer.status === 'verified');
    await assertWhole(answer, generation);
    assert.equal(answer.stats.reconnects, 1);
  });

  test(`${transport}: a connection that lived on while the page was hidden is kept`, async (t) => {
    const { clock, window, generation, answer } = await inWindow(t, transport);
    await reached(answer, 4);
    window.show('hidden');
    clock.time += 20_000;
    window.show('visible');
    generation.words(1);
    await reached(answer, 5);
    await clock.advance(6000);
    generation.done();
    const { stats } = await assertWhole(answer, generation);
    assert.equal(stats.reconnects, 0);
  });

  test(`${transport}: a machine that slept: late timers, and a dead connection`, async (t) => {
    for (const clockStood of [false, true]) {
      const { clock, generation, answer, waits } = await inWindow(t, transport, { faults: dying(transport) });
      await waits();
      generation.words(2).done();
      if (clockStood) clock.asleep += 3_600_000;
      await clock.advance(clockStood ? 12_000 : 3_600_000, { late: true });
      assert.equal(answer.status, 'streaming');
      await clock.advance(5000);
      await until(() => answer.status === 'reconnecting');
      await clock.passUntil(() => answer.status === 'verified');
      await assertWhole(answer, generation);
      assert.equal(answer.stats.reconnects, 1);
    }
  });

  test(`${transport}: a page that is kept for going back holds no connection, and goes on where it was`, async (t) => {
    const { clock, window, generation, answer, reads } = await inWindow(t, transport);
    await reached(answer, 4);
    window.leave();
    await until(() => answer.status === 'reconnecting');
    const before = reads();
    generation.words(2);
    await clock.advance(600_000);
    assert.deepEqual([reads(), answer.stats.reconnects], [before, 0]);
    window.comeBack();
    await reached(answer, 6);
    generation.done();
    const { stats } = await assertWhole(answer, generation);
    assert.equal(stats.reconnects, 1);
  });

  test(`${transport}: the network's return does not shorten what the server asked for`, async (t) => {
    const error = { code: 'rate_limited', message: 'slow down', status: 429, retry_after_ms: 8000 };
    const faults = transport === 'websocket' ? [{ on, error }]
      : [{ on, status: 429, headers: { 'retry-after': '8' }, body: JSON.stringify({ error }) }];
    const { clock, window, generation, answer, reads, told } = await inWindow(t, transport, { faults });
    generation.done();
    await until(() => told('waiting').length === 1);
    assert.deepEqual([told('waiting')[0].ms, told('waiting')[0].error.code], [8125, 'rate_limited']);
    for (let n = 0; n < 3; n++) {
      window.online();
      await clock.advance(2500);
    }
    assert.deepEqual([reads(), answer.stats.reconnects], [1, 0]);
    await clock.advance(500);
    const { stats } = await assertWhole(answer, generation);
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

  test(`${transport}: told to go away, it moves before the deadline`, async (t) => {
    if (transport === 'poll') return t.skip('each poll is a connection of its own');
    const { server, clock, generation, answer } = await inWindow(t, transport);
    await reached(answer, 4);
    server.goAway(4000);
    const bytes = answer.stats.bytesReceived;
    generation.words(1);
    await reached(answer, 5);
    assert.ok(answer.stats.bytesReceived > bytes);
    await clock.advance(1999);
    assert.equal(answer.stats.reconnects, 0);
    await clock.advance(1);
    await until(() => answer.stats.reconnects === 1);
    generation.words(1).done();
    await assertWhole(answer, generation);
  });

  test(`${transport}: heartbeats tell what the generation waits for, until it speaks`, async (t) => {
    const { server, generation, answer, told } = await inWindow(t, transport, { words: 0 });
    await reached(answer, 1);
    if (transport === 'poll') return t.skip('the answer to a poll is its heartbeat');
    const tell = async (state, count) => {
      const before = answer.stats.bytesReceived;
      server.beat(state);
      await until(() => answer.stats.bytesReceived > before && told('progress').length === count);
      return answer.progress;
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
    await reached(answer, 2);
    assert.equal(answer.progress, null);
    await tell({ stage: 'decoding', prefill_share: 1 }, 3);
    generation.done();
    await assertWhole(answer, generation);
  });

  test(`${transport}: a long prefill over connections that are cut is no reason to give up`, async (t) => {
    if (transport === 'poll') return t.skip('the answer to a poll is its heartbeat');
    const { server, attach, running } = await setUp(t);
    const generation = running(0);
    const answer = attach(generation.id, transport, { maxRetries: 2 });
    for (let n = 0; n < 8; n++) {
      const opened = () => server.requests.filter(({ kind }) => kind === (on === 'ws' ? 'ws.resume' : on)).length > n;
      await until(opened);
      const before = answer.stats.bytesReceived;
      await until(() => (server.beat({ stage: 'prefill', prefill_share: n / 8 }), answer.stats.bytesReceived > before + 20));
      server.cut();
      await until(() => answer.stats.reconnects > n);
    }
    generation.words(2).done();
    await assertWhole(answer, generation);
  });

  test(`${transport}: asked again after a failure that allows it, with a key of its own`, async (t) => {
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

test('what is not this page\'s life is left alone when the answer has ended', async (t) => {
  const { window, generation, answer, notices } = await inWindow(t, 'sse');
  generation.done();
  await assertWhole(answer, generation);
  const before = notices.length;
  window.offline();
  window.online();
  window.leave();
  window.comeBack();
  assert.equal(notices.length, before);
  assert.deepEqual((await collect(answer)).events.length, generation.lastSeq);
});

test('tabs that are looked at for a moment and left again cost no connection', async (t) => {
  const { clock, window, generation, answer } = await inWindow(t, 'sse');
  await reached(answer, 4);
  for (let n = 0; n < 5; n++) {
    window.show('hidden');
    await clock.advance(500);
    window.show('visible');
    await clock.advance(1500);
  }
  generation.done();
  assert.equal((await assertWhole(answer, generation)).stats.reconnects, 0);
});

test('a full server that closes a socket is left alone for a second', async (t) => {
  const { server, attach, ended, clock } = await setUp(t);
  for (const closeCode of [1013, 4429]) {
    server.faults = [{ on: 'ws', endAfter: 1, closeCode }];
    const generation = ended();
    await assertWhole(attach(generation.id, 'websocket'), generation);
    assert.equal(clock.slept.at(-1), 1125);
  }
});

test('another content type: a page that comes between is outlived, a wrong address is not', async (t) => {
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
