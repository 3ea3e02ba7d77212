// Every guarantee to a reader, over every transport, against a server that fails in every way it can.
import assert from 'node:assert/strict';
import test from 'node:test';
import { FakeGeneration } from './fake_log.mjs';
import { assertWhole, collect, READ_FAULT, reached, rejection, setUp, TRANSPORTS } from './testing.mjs';

const request = { model: 'scripted', prompt: 'why' };

for (const transport of TRANSPORTS) {
  const on = READ_FAULT[transport];
  const other = TRANSPORTS[(TRANSPORTS.indexOf(transport) + 1) % 3];

  test(`${transport}: reads a whole response`, async (t) => {
    const { server, stream } = await setUp(t);
    server.onStart = () => new FakeGeneration().words(30).done();
    const response = stream(request, transport);
    const id = await response.started;
    const result = await assertWhole(response, server.generations.get(id));
    assert.equal(result.id, id);
    assert.equal(result.model, 'scripted');
    assert.equal(result.usage.completion_tokens, 30);
    assert.ok(result.stats.bytesReceived > 1000);
    assert.deepEqual([result.stats.reconnects, result.stats.repeatsDropped, result.stats.gaps], [0, 0, 0]);
    assert.equal(server.starts, 1);
  });

  test(`${transport}: reads tokens as they arrive`, async (t) => {
    const { server, stream, clock } = await setUp(t);
    const generation = new FakeGeneration();
    server.onStart = () => generation;
    const response = stream(request, transport);
    await reached(response, 1);
    for (let n = 0; n < 4; n++) {
      clock.time += 100;
      generation.delta(`${n}`);
      await reached(response, n + 2);
      assert.equal(response.text(), '0123'.slice(0, n + 1));
    }
    generation.done();
    const { stats } = await assertWhole(response, generation);
    assert.equal(stats.ttftMs, 100);
    assert.equal(stats.tokensPerSecond, 10);
  });

  test(`${transport}: a connection cut after k bytes, for every k, loses nothing`, async (t) => {
    const { server, attach } = await setUp(t);
    const generation = server.add(new FakeGeneration().delta('naï').delta('ve 🌊').delta(' end').done());
    const { stats } = await assertWhole(attach(generation.id, transport), generation);
    for (let k = 0; k <= stats.bytesReceived + 20; k++) {
      server.faults = [{ on, cutAfter: k }];
      await assertWhole(attach(generation.id, transport), generation);
    }
  });

  test(`${transport}: a start cut after k bytes, for every k, is one generation`, async (t) => {
    const { server, stream } = await setUp(t);
    server.onStart = () => new FakeGeneration().delta('naïve').delta(' 🌊').done();
    const kind = transport === 'websocket' ? 'ws' : 'create';
    for (let k = 0; k < 900; k += 1) {
      server.starts = 0;
      server.faults = [{ on: kind, cutAfter: k }];
      const response = stream(request, transport);
      const generation = server.generations.get(await response.started);
      await assertWhole(response, generation);
      assert.equal(server.starts, 1, `cut after ${k}`);
    }
  });

  test(`${transport}: a start whose response was lost is not started twice`, async (t) => {
    const { server, stream } = await setUp(t);
    server.onStart = () => new FakeGeneration().words(3).done();
    server.faults = [1, 2, 3].map(() => ({ on: transport === 'websocket' ? 'ws' : 'create', reset: true }));
    const response = stream(request, transport);
    await response.result;
    assert.equal(server.starts, 1);
    assert.equal(response.stats.reconnects, 3);
  });

  test(`${transport}: repeats are dropped`, async (t) => {
    const { server, attach, ended } = await setUp(t);
    const generation = ended(20);
    server.faults = [{ on, repeat: true }];
    const { stats } = await assertWhole(attach(generation.id, transport), generation);
    assert.equal(stats.repeatsDropped, 21);
  });

  test(`${transport}: merged events are read`, async (t) => {
    const { server, attach, ended } = await setUp(t);
    const generation = ended(20);
    server.faults = [{ on, merge: true }];
    const response = attach(generation.id, transport);
    await assertWhole(response, generation);
    assert.equal((await collect(response)).events.length, 3);
  });

  test(`${transport}: each lost event is detected and read again`, async (t) => {
    const { server, attach, ended } = await setUp(t);
    const generation = ended(8);
    for (let seq = 1; seq < generation.lastSeq; seq++) {
      server.faults = [{ on, skip: (event) => event.seq === seq }];
      const { stats } = await assertWhole(attach(generation.id, transport), generation);
      assert.equal(stats.gaps, 1);
      assert.equal(stats.reconnects, 1);
    }
  });

  test(`${transport}: a stream that ends early without an error is resumed`, async (t) => {
    const { server, attach, ended } = await setUp(t);
    const generation = ended(8);
    for (let n = 0; n < generation.lastSeq; n++) {
      server.faults = [{ on, endAfter: n }];
      await assertWhole(attach(generation.id, transport), generation);
    }
  });

  test(`${transport}: a log that lost its tail replaces the text`, async (t) => {
    const { attach, ended } = await setUp(t);
    const generation = ended(8);
    const response = attach(generation.id, transport, { after: 99, texts: ['another text'] });
    const { stats } = await assertWhole(response, generation);
    assert.equal(stats.gaps, 1);
  });

  test(`${transport}: reads after a cursor`, async (t) => {
    const { attach, ended } = await setUp(t);
    const generation = ended(8);
    const before = generation.events.slice(0, 5).map((event) => event.text ?? '').join('');
    const response = attach(generation.id, transport, { after: 5, texts: [before] });
    assert.deepEqual((await collect(response)).events.map((event) => event.seq), [6, 7, 8, 9, 10]);
    assert.equal((await response.result).text, generation.choices[0]);
    assert.equal((await response.result).verified, true);
    const blind = await attach(generation.id, transport, { after: 5 }).result;
    assert.equal(blind.verified, false);
  });

  test(`${transport}: a cursor at the end gets the terminal event`, async (t) => {
    const { attach, ended } = await setUp(t);
    const generation = ended(8);
    const response = attach(generation.id, transport, { after: 10, texts: generation.choices });
    assert.deepEqual((await collect(response)).events.map((event) => event.type), ['done']);
    assert.equal((await response.result).verified, true);
  });

  test(`${transport}: Retry-After of a full server is obeyed`, async (t) => {
    const { server, attach, ended, clock } = await setUp(t);
    const generation = ended();
    const error = { code: 'overloaded', message: 'full', status: 503, retry_after_ms: 2000 };
    server.faults = transport === 'websocket' ? [{ on, error }]
      : [{ on, status: 503, headers: { 'retry-after': '2' }, body: JSON.stringify({ error }) }];
    const response = attach(generation.id, transport);
    await assertWhole(response, generation);
    assert.deepEqual(clock.slept, [2000 + 125]);
  });

  test(`${transport}: gives up after maxRetries attempts without progress, with growing waits`, async (t) => {
    const { server, attach, ended, clock } = await setUp(t);
    const generation = ended();
    server.faults = Array.from({ length: 20 }, () => ({ on, cutAfter: 0 }));
    const response = attach(generation.id, transport, { maxRetries: 7 });
    const error = await rejection(response.result);
    assert.equal(error.code, 'gave_up');
    assert.equal(error.retryable, true);
    assert.equal(error.cause.retryable, true);
    assert.equal(response.status, 'failed');
    assert.deepEqual(clock.slept, [125, 250, 500, 1000, 2000, 2500, 2500]);
  });

  test(`${transport}: progress resets the count of attempts`, async (t) => {
    const { server, attach, ended, clock } = await setUp(t);
    const generation = ended(30);
    server.faults = Array.from({ length: 31 }, () => ({ on, endAfter: 1 }));
    await assertWhole(attach(generation.id, transport, { maxRetries: 1 }), generation);
    assert.ok(clock.slept.every((ms) => ms === 125));
  });

  for (const [code, status] of [['generation_expired', 410], ['generation_not_found', 404]]) {
    test(`${transport}: ${status} is final`, async (t) => {
      const { server, attach, clock } = await setUp(t);
      server.purged.add('gen_purged');
      const response = attach(status === 410 ? 'gen_purged' : 'gen_unknown', transport);
      const error = await rejection(response.result);
      assert.deepEqual([error.name, error.code, error.status, error.retryable], ['RunnelError', code, status, false]);
      assert.deepEqual(clock.slept, []);
    });
  }

  test(`${transport}: a generation that failed rejects, after its text`, async (t) => {
    const { server, attach } = await setUp(t);
    const generation = server.add(new FakeGeneration().delta('so far').failed());
    const response = attach(generation.id, transport);
    const { events, error } = await collect(response);
    assert.deepEqual(events.map((event) => event.type), ['started', 'delta', 'failed']);
    assert.deepEqual([error.code, error.retryable], ['engine_failed', true]);
    assert.equal(error.partial.texts[0], 'so far');
    assert.equal(await rejection(response.result), error);
  });

  test(`${transport}: a digest that differs is a failure`, async (t) => {
    const { attach, ended } = await setUp(t);
    const generation = ended(5);
    generation.events.at(-1).choices[0].crc32 = 'deadbeef';
    const response = attach(generation.id, transport);
    const { events, error } = await collect(response);
    assert.equal(error.code, 'digest_mismatch');
    assert.notEqual(events.at(-1).type, 'done');
    assert.equal(response.status, 'failed');
  });

  test(`${transport}: a silent connection is given up`, async (t) => {
    const { server, attach, ended, clock } = await setUp(t);
    const generation = ended();
    server.faults = [{ on, silent: true }];
    const response = attach(generation.id, transport);
    while (!server.requests.some(({ kind }) => kind === (transport === 'websocket' ? 'ws.resume' : on))) {
      await new Promise(setImmediate);
    }
    // 100 s without a byte after the request, in thirds of the limit.
    for (let n = 0; n < 4; n++) clock.advance(15_000);
    await assertWhole(response, generation);
    assert.equal(response.stats.reconnects, 1);
  });

  test(`${transport}: after drop(), it resumes immediately`, async (t) => {
    const { attach, running, clock } = await setUp(t);
    const generation = running(3);
    const response = attach(generation.id, transport);
    for (let n = 0; n < 3; n++) {
      await reached(response, generation.lastSeq);
      response.drop();
      generation.words(2);
    }
    generation.done();
    const { stats } = await assertWhole(response, generation);
    assert.equal(stats.reconnects, 3);
    assert.deepEqual(clock.slept, []);
  });

  test(`${transport}: switched to ${other} while text arrives and back`, async (t) => {
    const { attach, running } = await setUp(t);
    const generation = running(3);
    const response = attach(generation.id, transport);
    await reached(response, 4);
    response.switchTransport(other);
    generation.words(3);
    await reached(response, 7);
    assert.equal(response.transport, other);
    response.switchTransport(transport);
    generation.words(3).done();
    const { stats } = await assertWhole(response, generation);
    assert.deepEqual([stats.switches, stats.reconnects], [2, 0]);
  });

  test(`${transport}: after cancel(), it ends with its text so far`, async (t) => {
    const { server, stream } = await setUp(t);
    const generation = new FakeGeneration().words(4);
    server.onStart = () => generation;
    const response = stream(request, transport);
    await response.cancel();
    await assertWhole(response, generation, 'cancelled');
    await response.cancel();
  });

  test(`${transport}: after close(), it rejects and cancels nothing`, async (t) => {
    const { attach, running } = await setUp(t);
    const generation = running(3);
    const response = attach(generation.id, transport);
    await reached(response, 4);
    response.close();
    assert.equal((await rejection(response.result)).code, 'closed');
    assert.equal(response.status, 'closed');
    assert.equal(generation.cancelled, false);
  });

  test(`${transport}: an AbortSignal ends the reader`, async (t) => {
    const { attach, running } = await setUp(t);
    const controller = new AbortController();
    const response = attach(running(3).id, transport, { signal: controller.signal });
    await reached(response, 4);
    controller.abort();
    assert.equal((await rejection(response.result)).code, 'aborted');
    const late = attach(running(3).id, transport, { signal: controller.signal });
    assert.equal((await rejection(late.result)).code, 'aborted');
  });

  test(`${transport}: events of another generation are rejected`, async (t) => {
    const { attach, server } = await setUp(t);
    server.generations.set('gen_mine', new FakeGeneration().words(4).done());
    const response = attach('gen_mine', transport, { maxRetries: 0 });
    if (transport === 'websocket') {
      // A socket carries many generations: frames of others are ignored.
      while (response.stats.bytesReceived < 1000) await new Promise(setImmediate);
      response.close();
    }
    const error = await rejection(response.result);
    assert.equal(transport === 'websocket' ? error.code : error.cause.code,
      transport === 'websocket' ? 'closed' : 'wrong_generation');
    assert.deepEqual((await collect(response)).events, []);
  });
}
