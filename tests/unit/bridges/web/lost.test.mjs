// A generation whose replica is gone: whatever the server still knows of it, its reader learns that it was lost.
import assert from 'node:assert/strict';
import test from 'node:test';
import { reached, READ_FAULT, rejection, setUp, TRANSPORTS } from './testing.mjs';

const LOST = ['generation_lost', true];
const end = async (answer) => {
  const error = await rejection(answer.result);
  return [error.code, error.retryable];
};

for (const transport of TRANSPORTS) {
  test(`${transport}: 404 for a generation that this reader had read from is generation_lost`, async (t) => {
    const { server, attach, running } = await setUp(t);
    const generation = running(5);
    const answer = attach(generation.id, transport);
    await reached(answer, 3);
    server.generations.delete(generation.id);
    server.cut();
    assert.deepEqual(await end(answer), LOST);
    assert.equal(answer.status, 'failed');
    assert.equal(answer.lastError.partial.after, generation.lastSeq);
  });

  test(`${transport}: 404 for a cursor that somebody had read up to is generation_lost`, async (t) => {
    const { attach } = await setUp(t);
    assert.deepEqual(await end(attach('gen_never', transport, { after: 3, texts: ['a'] })), LOST);
  });

  test(`${transport}: 404 for a generation that nobody has seen stays 404`, async (t) => {
    const { attach, clock } = await setUp(t);
    assert.deepEqual(await end(attach('gen_never', transport)), ['generation_not_found', false]);
    assert.deepEqual(clock.slept, []);
  });

  test(`${transport}: generation_lost of the server is final and retryable`, async (t) => {
    const { server, attach, clock, running } = await setUp(t);
    const generation = running(5);
    const error = { code: 'generation_lost', message: 'gone', status: 410 };
    server.faults = [transport === 'websocket'
      ? { on: 'ws', error }
      : { on: READ_FAULT[transport], status: 410, body: JSON.stringify({ error }) }];
    assert.deepEqual(await end(attach(generation.id, transport)), LOST);
    assert.deepEqual(clock.slept, []);
  });
}

test('a start that was answered, and is then not found, is generation_lost', async (t) => {
  const { server, stream } = await setUp(t);
  const answer = stream({ prompt: 'a' }, 'poll');
  await answer.started;
  server.generations.clear();
  server.cut();
  assert.deepEqual(await end(answer), LOST);
});
