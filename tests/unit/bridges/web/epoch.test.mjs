// Takeovers: another replica continues a generation, perhaps without the last events of its log.
import assert from 'node:assert/strict';
import test from 'node:test';
import { Transcript } from '../../../../bridges/web/runnel.js';
import { FakeGeneration } from './fake_log.mjs';
import { assertWhole, reached, READ_FAULT, rejection, setUp, TRANSPORTS, until } from './testing.mjs';

const EPOCH = 65537;

/** The cursors of all requests that read, as text. */
function cursorsOf({ requests }) {
  const read = requests.filter(({ kind }) => ['events', 'poll', 'ws.resume'].includes(kind));
  return read.map(({ kind, url, headers, command }) => {
    if (kind === 'ws.resume') return `${command.after}${'epoch' in command ? `.${command.epoch}` : ''}`;
    if (kind === 'poll') return new URL(url, 'http://x').searchParams.get('after');
    return headers['last-event-id']?.split(':')[1] ?? '0';
  });
}

for (const transport of TRANSPORTS) {
  test(`${transport}: a reader continues after a takeover, with its epoch in the cursor`, async (t) => {
    const { server, attach, running } = await setUp(t);
    const generation = running(4);
    const response = attach(generation.id, transport);
    const whole = assertWhole(response, generation);
    await reached(response, 5);
    server.cut();
    generation.takeOver(EPOCH).words(3);
    await reached(response, 8);
    server.cut();
    generation.takeOver(3 * EPOCH).words(2).done();
    await whole;
    const cursors = cursorsOf(server);
    assert.ok(cursors.includes('5'), cursors);
    assert.ok(cursors.includes(`8.${EPOCH}`), cursors);
    assert.equal(response.stats.gaps, 0);
    assert.equal(response.cursor.epoch, 3 * EPOCH);
  });

  test(`${transport}: a gap sets seq and epoch back if the end of the log is lost`, async (t) => {
    const { server, attach, running } = await setUp(t);
    const generation = running(8);
    const response = attach(generation.id, transport);
    const whole = assertWhole(response, generation);
    await reached(response, 9);
    server.cut();
    // More events than before, so that without the epoch the reader would take those after 9 for the next ones.
    generation.takeOver(EPOCH, 3);
    for (const word of ' all of this is another text'.split(/(?= )/)) generation.delta(word);
    await until(() => response.stats.gaps === 1);
    server.cut();
    generation.delta(' and its end').done();
    const { text } = await whole;
    assert.match(text, /another text and its end$/);
    assert.equal(response.cursor.epoch, EPOCH);
  });

  test(`${transport}: an ended log with as many events is not taken for the one that was read`, async (t) => {
    const { server, attach, running } = await setUp(t);
    const generation = running(3);
    const response = attach(generation.id, transport);
    const whole = assertWhole(response, generation);
    await reached(response, 4);
    server.cut();
    generation.takeOver(EPOCH, 1).done();
    assert.equal(generation.lastSeq, 4);
    await whole;
    assert.equal(response.stats.gaps, 1);
  });

  test(`${transport}: a reader at the end of a log that was taken over reads its end again`, async (t) => {
    const { server, attach } = await setUp(t);
    const generation = server.add(new FakeGeneration().words(3).takeOver(EPOCH).words(2).done());
    const { lastSeq } = generation;
    const response = attach(generation.id, transport, { after: lastSeq, epoch: EPOCH, texts: [generation.choices[0]] });
    assert.equal((await response.result).verified, true);
    // Over WebSocket the server repeats it.
    const expected = transport === 'websocket' ? [`${lastSeq}.${EPOCH}`] : [`${lastSeq}.${EPOCH}`, `${lastSeq - 1}.${EPOCH}`];
    assert.deepEqual(cursorsOf(server), expected);
  });

  test(`${transport}: the cursor of one reader continues in another`, async (t) => {
    const { server, attach, running } = await setUp(t);
    const generation = running(4).takeOver(EPOCH).words(2);
    const first = attach(generation.id, transport);
    await reached(first, 7);
    const { cursor } = first;
    first.close();
    assert.deepEqual(cursor, { id: generation.id, after: 7, epoch: EPOCH, texts: generation.choices, parts: [[]] });
    assert.equal((await rejection(first.result)).partial.epoch, EPOCH);
    const stored = JSON.parse(JSON.stringify(cursor));
    generation.takeOver(2 * EPOCH, 1).delta(' end').done();
    const second = attach(stored.id, transport, stored);
    const { text, verified } = await second.result;
    assert.deepEqual([text, verified, second.stats.gaps], [generation.choices[0], true, 1]);
    assert.ok(cursorsOf(server).includes(`7.${EPOCH}`));
  });

  test(`${transport}: without a takeover no epoch is sent or kept`, async (t) => {
    const { server, attach, running } = await setUp(t);
    const generation = running(4);
    const response = attach(generation.id, transport, { epoch: 0 });
    await reached(response, 3);
    server.cut();
    generation.words(2);
    await reached(response, 7);
    assert.equal('epoch' in response.cursor, false);
    server.cut();
    generation.done();
    await response.result;
    for (const cursor of cursorsOf(server)) assert.match(cursor, /^\d+$/);
    assert.deepEqual(Object.keys(response.cursor), ['id', 'after', 'texts', 'parts']);
  });

  test(`${transport}: an event with a malformed epoch breaks the connection, not the text`, async (t) => {
    const { server, attach, ended } = await setUp(t);
    for (const epoch of [-1, 1.5, 2 ** 32, '65537', null, {}]) {
      const generation = ended(4);
      const good = generation.events;
      generation.events = good.map((event) => (event.seq < 3 ? event : { ...event, epoch }));
      const response = attach(generation.id, transport);
      await until(() => response.lastError?.code === 'bad_event', `bad_event for ${JSON.stringify(epoch)}`);
      generation.events = good;
      await assertWhole(response, generation);
    }
    assert.ok(READ_FAULT[transport]);
    assert.ok(server.requests.length > 0);
  });
}

test('a start follows its generation through a takeover', async (t) => {
  const { server, stream } = await setUp(t);
  let generation;
  server.onStart = () => (generation = new FakeGeneration().words(3));
  const response = stream({ prompt: 'a' }, 'sse', { epoch: 99, after: 99 });
  await reached(response, 4);
  server.cut();
  generation.takeOver(EPOCH).words(2).done();
  await assertWhole(response, generation);
});

test('Transcript keeps the epoch of the last event that it applied', () => {
  const reader = new Transcript();
  const delta = (seq, epoch) => ({ type: 'delta', gen: 'gen_x', seq, choice: 0, text: 'a', tokens: 1, epoch });
  assert.equal(reader.epoch, 0);
  reader.apply({ type: 'started', gen: 'gen_x', seq: 1 });
  reader.apply(delta(2, 7));
  assert.equal(reader.epoch, 7);
  assert.equal(reader.apply(delta(2, 9)), 'repeat');
  assert.equal(reader.apply(delta(4, 9)), 'missing');
  assert.deepEqual([reader.last, reader.epoch], [2, 7]);
  assert.throws(() => reader.apply(delta(3, -1)), { code: 'bad_event' });
  assert.deepEqual([reader.last, reader.epoch, reader.text()], [2, 7, 'a']);
  const gap = { type: 'gap', gen: 'gen_x', seq: 1, epoch: 11, snapshot: { seq: 1, choices: [{ index: 0, text: '' }] } };
  assert.equal(reader.apply(gap), 'applied');
  assert.deepEqual([reader.last, reader.epoch, reader.text()], [1, 11, '']);
  // Without a snapshot the log follows from its beginning.
  assert.equal(reader.apply({ ...gap, seq: 0, snapshot: null, epoch: 13 }), 'missing');
  assert.deepEqual([reader.last, reader.epoch], [0, 13]);
  assert.throws(() => reader.apply({ ...gap, epoch: 'x' }), { code: 'bad_event' });
  assert.deepEqual([reader.last, reader.epoch], [0, 13]);
  assert.deepEqual([new Transcript({ after: 3, epoch: 5 }).epoch, new Transcript({ after: 3 }).epoch], [5, 0]);
});
