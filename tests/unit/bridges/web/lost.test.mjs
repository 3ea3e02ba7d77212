// A generation whose replica is gone: its reader gets generation_lost, whatever the server remembers.
import assert from 'node:assert/strict';
import test from 'node:test';
import { reached, READ_FAULT, rejection, setUp, TRANSPORTS } from './testing.mjs';

const LOST = ['generation_lost', true];
const end = async (response) => {
  const error = await rejection(response.result);
  return [error.code, error.retryable];
};

for (const transport of TRANSPORTS) {
  test(`${transport}: 404 for a generation that this reader has read from is generation_lost`, async (t) => {
    const { server, attach, running } = await setUp(t);
    const generation = running(5);
    const response = attach(generation.id, transport);
    await reached(response, 3);
    server.generations.delete(generation.id);
    server.cut();
    assert.deepEqual(await end(response), LOST);
    assert.equal(response.status, 'failed');
    assert.equal(response.lastError.partial.after, generation.lastSeq);
  });

  test(`${transport}: 404 for a cursor is generation_lost`, async (t) => {
    const { attach } = await setUp(t);
    assert.deepEqual(await end(attach('gen_never', transport, { after: 3, texts: ['a'] })), LOST);
  });

  test(`${transport}: 404 for a generation that this reader has not read from stays 404`, async (t) => {
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

test('404 after a successful start is generation_lost', async (t) => {
  const { server, stream } = await setUp(t);
  const response = stream({ prompt: 'a' }, 'poll');
  await response.started;
  server.generations.clear();
  server.cut();
  assert.deepEqual(await end(response), LOST);
});
