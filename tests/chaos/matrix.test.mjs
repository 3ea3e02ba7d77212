// Resume from anywhere to anywhere: every transport to every other, at every event, through different processes; and
// the documented response to every invalid cursor.
import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import { CheckedLog, Tally } from './checked_log.mjs';
import { Refused, refusal } from './faults.mjs';
import { startFleet } from './fleet.mjs';
import { bodyText, request } from './readers/http.mjs';
import { readGrpc } from './readers/grpc.mjs';
import { poll, readPoll } from './readers/poll.mjs';
import { readSse, start } from './readers/sse.mjs';
import { WsConnection, readWs } from './readers/ws.mjs';
import { Script, isPlain } from './script.mjs';

const TRANSPORTS = ['fetch', 'post', 'eventsource', 'poll', 'ws', 'proto', 'grpc'];
// Reasoning, text, two calls that take turns, text and a refusal.
const SEGMENTS = [
  { kind: 'reasoning', tokens: 3 }, { kind: 'text', tokens: 3 }, { kind: 'tool_call', names: ['weather', 'time'], tokens: 2 },
  { kind: 'text', tokens: 1 }, { kind: 'refusal', tokens: 2 },
];
const SHAPES = [
  ['one choice', {}], ['two choices', { choices: 2 }], ['parts', { segments: SEGMENTS }],
  ['parts of two choices', { segments: SEGMENTS, choices: 2 }], ['parts, cut in a call', { segments: SEGMENTS, maxTokens: 9 }],
];
const UNKNOWN = `gen_${'a'.repeat(26)}`;
const idleMs = 10_000;
let fleet;
let next = 0;

before(async () => (fleet = await startFleet()));
after(() => fleet.stop());

/** Reads the events after a cursor, through another process each time. */
function read(transport, what) {
  const at = next++ % 2;
  const options = { ...what, idleMs };
  if (transport === 'grpc') return readGrpc(fleet.grpc, options);
  if (transport === 'ws') return readWs(fleet.ws[at].url, { ...options, format: 'json' });
  if (transport === 'proto') return readWs(fleet.ws[at].url, { ...options, format: 'proto' });
  if (transport === 'poll') return readPoll(fleet.sse[at].url, options);
  return readSse(fleet.sse[at].url, { ...options, style: transport });
}

function scriptOf(more) {
  return new Script({ seed: 1000 + next, tokens: 12, pace: 100_000, firstTokenMs: 0, key: `matrix-${next++}`, ...more });
}

/** A log in which all events up to `seq` count as read. */
function logAfter(script, id, seq) {
  const log = new CheckedLog(script, new Tally());
  return Object.assign(log, { id, last: seq, parts: script.parts(seq) });
}

async function readAll(log, transport) {
  const on = log.connection(transport);
  for await (const event of read(transport, { script: log.script, id: log.id, after: log.last, epoch: log.epoch })) log.apply(event, on);
}

function checkWhole(log, what) {
  assert.deepEqual(log.tally.firstFaults, [], what);
  assert.ok(log.ended, `${what}: no terminal event`);
}

async function finished(script = scriptOf()) {
  const log = new CheckedLog(script, new Tally());
  await readAll(log, 'grpc');
  checkWhole(log, 'grpc');
  return log;
}

async function inParallel(tasks, width) {
  const left = tasks[Symbol.iterator]();
  await Promise.all(Array.from({ length: width }, async () => {
    for (const task of left) await task();
  }));
}

for (const [name, shape] of SHAPES) {
  test(`ended, ${name}: every transport from every event on`, async () => {
    const { script, id } = await finished(scriptOf(shape));
    for (const transport of TRANSPORTS) {
      for (let seq = 0; seq < script.lastSeq; seq++) {
        const log = logAfter(script, id, seq);
        await readAll(log, transport);
        checkWhole(log, `${transport} after ${seq}`);
      }
    }
  });
}

for (const [name, shape] of [SHAPES[0], SHAPES[2]]) {
  test(`live, ${name}: every transport to every other at every event, merged ones too`, async () => {
    const tasks = [];
    for (const from of TRANSPORTS) {
      for (const to of TRANSPORTS) {
        for (let seq = 0; seq <= scriptOf(shape).lastSeq; seq++) tasks.push(() => hop(from, to, seq, shape));
      }
    }
    await inParallel(tasks, 60);
  });
}

async function hop(from, to, seq, shape) {
  const script = scriptOf({ pace: 200, firstTokenMs: 5, ...shape });
  const first = new CheckedLog(script, new Tally());
  const on = first.connection(from);
  for await (const event of read(from, { script, after: 0 })) {
    first.apply(event, on);
    // May be after `seq` if `seq` is in the middle of a merged event.
    if (event.seq >= seq) break;
  }
  assert.deepEqual(first.tally.firstFaults, [], from);
  if (seq >= script.lastSeq) return;
  const rest = logAfter(script, first.id, seq);
  await readAll(rest, to);
  checkWhole(rest, `${from} to ${to} after ${seq}`);
}

test('live: a hop after each event, every transport to every other', async () => {
  // An Eulerian circuit of the complete graph with loops: all 49 pairs, one after another.
  const way = TRANSPORTS.flatMap((_, step) => TRANSPORTS.map((_, i) => TRANSPORTS[(i * step) % TRANSPORTS.length]));
  // Longer than any machine needs; it is cancelled after the last pair.
  const script = scriptOf({ tokens: 100_000, pace: 60, firstTokenMs: 5, cancelAt: way.length });
  const log = new CheckedLog(script, new Tally());
  for (const transport of way) {
    const on = log.connection(transport);
    for await (const event of read(transport, { script, id: log.id, after: log.last, epoch: log.epoch })) {
      log.apply(event, on);
      break;
    }
  }
  const response = await request(`${fleet.sse[0].url}/v1/generations/${log.id}/cancel`, { method: 'POST', idleMs });
  assert.equal(response.statusCode, 200, await bodyText(response));
  await readAll(log, 'grpc');
  checkWhole(log, 'after 49 hops');
});

test('many readers of one generation at the same time, each from another cursor', async () => {
  const script = scriptOf({ tokens: 100, pace: 200, firstTokenMs: 5 });
  const id = await start(fleet.sse[0].url, script, { idleMs });
  const logs = [];
  for (let seq = 0; seq <= 20; seq += 5) {
    // Readers with later cursors must wait until the log has reached their cursor.
    for (const transport of TRANSPORTS) logs.push({ transport, log: logAfter(script, id, seq) });
  }
  for await (const event of read('grpc', { script, id, after: 0 })) {
    if (event.seq >= 20) break;
  }
  await Promise.all(logs.map(({ transport, log }) => readAll(log, transport)));
  for (const { transport, log } of logs) checkWhole(log, transport);
});

async function collect(reading) {
  const events = [];
  for await (const event of reading) events.push(event);
  return events;
}

async function refusalOf(reading) {
  try {
    const events = await collect(reading);
    return `no refusal but ${JSON.stringify(events)}`;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return `${error.status} ${error.code}`;
  }
}

for (const [name, shape] of SHAPES) {
  test(`a cursor after the end, ${name}: gap with the complete output, then the end`, () => gapAfterEnd(shape));
}

async function gapAfterEnd(shape) {
  const { script, id, last, terminal } = await finished(scriptOf(shape));
  for (const transport of TRANSPORTS) {
    for (const beyond of [last + 1, last + 1000, 2 ** 50]) {
      const [gap, ...rest] = await collect(read(transport, { script, id, after: beyond }));
      const what = `${transport} after ${beyond}: ${JSON.stringify(gap)}`;
      assert.equal(gap?.type, 'gap', what);
      assert.deepEqual([gap.requested_after, gap.snapshot.seq, gap.first_available], [beyond, last - 1, last], what);
      assert.deepEqual(gap.snapshot.choices.map(({ text }) => text), script.texts(), what);
      assert.deepEqual(gap.snapshot.choices.map(({ parts }) => parts), script.parts().map(described), what);
      assert.deepEqual(rest.map(({ seq, type }) => ({ seq, type })), [{ seq: last, type: terminal.type }], what);
    }
  }
}

/** The parts of a choice as a snapshot has them. */
const described = (parts) => (isPlain(parts) ? undefined : parts.map((part, index) => ({ index, ...part })));

test('a cursor after the end of a running generation: gap, then the following events', async () => {
  for (const transport of TRANSPORTS) {
    const script = scriptOf({ tokens: 60, pace: 100, firstTokenMs: 100 });
    const id = await start(fleet.sse[0].url, script, { idleMs });
    const log = logAfter(script, id, 0);
    const on = log.connection(transport);
    let gaps = 0;
    for await (const event of read(transport, { script, id, after: 1_000_000 })) {
      if (event.type !== 'gap') {
        log.apply(event, on);
        continue;
      }
      gaps++;
      const texts = event.snapshot.choices.map(({ text }) => text ?? '');
      assert.deepEqual(texts, script.texts(event.snapshot.seq), transport);
      Object.assign(log, { last: event.snapshot.seq, parts: script.parts(event.snapshot.seq) });
    }
    assert.equal(gaps, 1, transport);
    checkWhole(log, transport);
  }
});

test('on_gap=fail: 410 instead', async () => {
  const { id, last } = await finished();
  for (const path of [`/events?on_gap=fail&after=${last + 1}`, `?on_gap=fail&after=${last + 1}`]) {
    const response = await request(`${fleet.sse[0].url}/v1/generations/${id}${path}`, { idleMs });
    const error = refusal('SSE', response.statusCode, await bodyText(response));
    assert.equal(`${error.status} ${error.code}`, '410 after_beyond_end', path);
  }
});

test('an unknown id: 404 everywhere, immediately; with a cursor it must have existed, and is lost', async () => {
  for (const transport of TRANSPORTS) {
    for (const seq of [0, 17]) {
      const outcome = await refusalOf(read(transport, { script: scriptOf(), id: UNKNOWN, after: seq }));
      const expected = transport === 'grpc' ? '404 other_replica'
        : seq > 0 ? '410 generation_lost' : '404 generation_not_found';
      assert.equal(outcome, expected, `${transport} after ${seq}`);
    }
  }
});

test('a purged id: 410 everywhere, and deleting it again succeeds', async () => {
  const { script, id, last } = await finished();
  for (let i = 0; i < 2; i++) {
    const response = await request(`${fleet.sse[i].url}/v1/generations/${id}`, { method: 'DELETE', idleMs });
    assert.equal(response.statusCode, 204);
  }
  for (const transport of TRANSPORTS) {
    for (const seq of [0, 5, last, last + 1]) {
      const outcome = await refusalOf(read(transport, { script, id, after: seq }));
      // gRPC has one code for both; the reason distinguishes them.
      const expected = transport === 'grpc' ? '404 generation_expired' : '410 generation_expired';
      assert.equal(outcome, expected, `${transport} after ${seq}`);
    }
  }
  const snapshot = await request(`${fleet.sse[0].url}/v1/generations/${id}`, { idleMs });
  assert.equal(snapshot.statusCode, 410);
  snapshot.resume();
});

test('deleting a running generation ends its readers and removes it', async () => {
  // A poll after the deletion does not find it any more.
  for (const transport of TRANSPORTS.filter((each) => each !== 'poll')) {
    const script = scriptOf({ tokens: 1000, pace: 50, cancelAt: 3 });
    const log = new CheckedLog(script, new Tally());
    const on = log.connection(transport);
    for await (const event of read(transport, { script, after: 0 })) {
      log.apply(event, on);
      if (event.seq === 3) {
        const response = await request(`${fleet.sse[0].url}/v1/generations/${log.id}`, { method: 'DELETE', idleMs });
        assert.equal(response.statusCode, 204);
      }
    }
    checkWhole(log, transport);
    assert.equal(log.terminal.choices[0].finish_reason, 'cancelled');
    assert.match(await refusalOf(read(transport, { script, id: log.id, after: 3 })), /generation_expired$/, transport);
  }
});

test('an invalid cursor: 400, never a start from zero', async () => {
  const { id, last } = await finished();
  const other = `gen_${'b'.repeat(26)}`;
  const bad = [
    '', '-1', '+1', '1.', '.1', '1.0', '1.-1', '1.1.1', '1.99999999999', '01', 'x', '%20', '1e3', '18446744073709551616',
    `${other}:3`, `${other}:3.1`, `${id}:`, `${id}:x`, `${id}:-1`, `${id}:1.`,
  ];
  for (const cursor of bad) {
    for (const path of [`/events?after=${cursor}`, `?after=${cursor}`]) {
      const response = await request(`${fleet.sse[0].url}/v1/generations/${id}${path}`, { idleMs });
      assert.equal(response.statusCode, 400, `${path}: ${await bodyText(response)}`);
    }
    // An empty header counts as absent.
    if (cursor === '' || cursor === '%20') continue;
    const headers = { 'last-event-id': cursor };
    const response = await request(`${fleet.sse[0].url}/v1/generations/${id}/events`, { idleMs, headers });
    assert.equal(response.statusCode, 400, `last-event-id ${cursor}: ${await bodyText(response)}`);
  }
  const good = await poll(fleet.sse[0].url, { id, after: `${id}:${last - 1}`, idleMs });
  assert.equal(good.events.length, 1);
  for (const cursor of [-1, 1.5, 'x', '1', null, 2 ** 64]) {
    const outcome = await refusalOf(readWs(fleet.ws[0].url, { id, after: cursor, format: 'json', idleMs }));
    assert.match(outcome, /^400 /, `resume after ${cursor}`);
  }
  for (const epoch of [-1, 1.5, '1', 2 ** 32]) {
    const outcome = await refusalOf(readWs(fleet.ws[0].url, { id, after: 1, epoch, format: 'json', idleMs }));
    assert.match(outcome, /^400 /, `resume in epoch ${epoch}`);
  }
});

test('at the end: 204, or the terminal event once more', async () => {
  const { script, id, last, terminal } = await finished();
  for (const transport of TRANSPORTS) {
    const events = await collect(read(transport, { script, id, after: last }));
    const repeats = transport === 'ws' || transport === 'proto';
    const expected = repeats ? [{ seq: last, type: terminal.type }] : [];
    assert.deepEqual(events.map(({ seq, type }) => ({ seq, type })), expected, transport);
  }
  const response = await request(`${fleet.sse[0].url}/v1/generations/${id}/events?after=0`,
    { idleMs, headers: { 'last-event-id': `${id}:${last}` } });
  assert.equal(response.statusCode, 204, 'the header wins over the URL');
});

test('the same key and request attach, on every transport; another request is rejected', async () => {
  for (const first of TRANSPORTS) {
    const script = scriptOf();
    const log = new CheckedLog(script, new Tally());
    await readAll(log, first);
    checkWhole(log, first);
    for (const again of TRANSPORTS) {
      const repeat = new CheckedLog(script, new Tally());
      await readAll(repeat, again);
      checkWhole(repeat, `${first}, then ${again}`);
      assert.equal(repeat.id, log.id, `${first}, then ${again}`);
      const other = new Script({ ...script, seed: script.seed + 1 });
      const outcome = await refusalOf(read(again, { script: other, after: 0 }));
      // In gRPC INVALID_ARGUMENT with a reason.
      const expected = `${again === 'grpc' ? 400 : 422} idempotency_mismatch`;
      assert.equal(outcome, expected, `${first}, then ${again}`);
    }
  }
});

test('a repeated POST with Last-Event-ID continues, by id or by key', async () => {
  const { script, id, last } = await finished();
  for (let seq = 1; seq < last; seq++) {
    const whole = `${id}:${seq}`;
    for (const [cursor, key] of [[whole, undefined], [String(seq), script.key], [whole, script.key]]) {
      const response = await request(`${fleet.sse[seq % 2].url}/v1/generations`, {
        method: 'POST', idleMs, body: JSON.stringify(script.body()),
        headers: { 'content-type': 'application/json', accept: 'text/event-stream', 'last-event-id': cursor,
          ...(key && { 'idempotency-key': key }) },
      });
      const text = await bodyText(response);
      assert.equal(response.statusCode, 200, text);
      const ids = [...text.matchAll(/^id: (.*)$/gm)].map(([, each]) => each);
      assert.equal(ids.at(-1), `${id}:${last}`);
      const { first_seq, seq: covered } = JSON.parse(/^data: (.*)$/m.exec(text)[1]);
      assert.equal(first_seq ?? covered, seq + 1);
    }
  }
  const bare = await request(`${fleet.sse[0].url}/v1/generations`, {
    method: 'POST', idleMs, body: JSON.stringify(script.body()),
    headers: { 'content-type': 'application/json', accept: 'text/event-stream', 'last-event-id': '3' },
  });
  assert.equal(bare.statusCode, 400, await bodyText(bare));
});

test('the id of another principal: unknown on every route, and the generation is unaffected', async (t) => {
  const keys = join(mkdtempSync(join(tmpdir(), 'runnel-keys-')), 'keys');
  writeFileSync(keys, 'one\nother\n');
  const flags = [`--api_keys_file=${keys}`];
  const guarded = await startFleet({ flags: { sse: flags, ws: flags } });
  t.after(() => guarded.stop());
  const as = (key, more) => ({ idleMs, ...more, headers: { authorization: `Bearer ${key}`, ...more?.headers } });
  const script = scriptOf({ tokens: 50, pace: 25 });
  const created = await request(`${guarded.sse[0].url}/v1/generations`, as('one', {
    method: 'POST', body: JSON.stringify(script.body()),
    headers: { 'content-type': 'application/json', 'idempotency-key': script.key },
  }));
  const { id } = JSON.parse(await bodyText(created));
  const routes = [
    ['GET', '/events'], ['GET', '/events?after=5'], ['GET', '?after=0'], ['GET', '?after=3&wait=1'], ['GET', ''],
    ['POST', '/cancel'], ['DELETE', ''],
  ];
  for (const [method, path] of routes) {
    const response = await request(`${guarded.sse[1].url}/v1/generations/${id}${path}`, as('other', { method }));
    const error = refusal('SSE', response.statusCode, await bodyText(response));
    assert.equal(`${error.status} ${error.code}`, '404 generation_not_found', `${method} ${path}`);
  }
  for (const format of ['json', 'proto']) {
    const connection = await WsConnection.open(guarded.ws[0].url, as('other', { format }));
    connection.cancel(id);
    assert.equal(await refusalOf(connection.read({ id, after: 0 })), '404 generation_not_found', format);
    connection.close();
  }
  // The owner, on another process and transport.
  const log = logAfter(script, id, 0);
  const connection = await WsConnection.open(guarded.ws[1].url, as('one'));
  for await (const event of connection.read({ id, after: 0 })) log.apply(event, log.on ??= log.connection('ws'));
  connection.close();
  checkWhole(log, 'the owner');
  assert.equal(log.terminal.choices[0].finish_reason, 'stop');
});
