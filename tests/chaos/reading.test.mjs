// A strict reader counts a generation that is gone as lost only with an explanation, at whatever event it is.
import assert from 'node:assert/strict';
import test from 'node:test';
import { CheckedLog, Tally } from './checked_log.mjs';
import { Refused } from './faults.mjs';
import { Random } from './random.mjs';
import { readToEnd } from './reading.mjs';
import { Script } from './script.mjs';

/** Reads from a network that sends `events` and then says that it knows of no such generation. */
async function read(events, judge) {
  const log = new CheckedLog(new Script({ seed: 1, tokens: 3, key: 'k' }), new Tally(), judge);
  const network = {
    async* read() {
      yield* events;
      throw new Refused('SSE', 404, 'generation_not_found', 'no such generation');
    },
  };
  await readToEnd(network, log, new Random(1), { deadlineMs: 1000, onResume: () => {} });
  return log;
}

const started = { type: 'started', gen: 'gen_x', seq: 1 };
for (const [what, events] of [['before its first event', []], ['later', [started]]]) {
  test(`a generation is lost ${what}, with an explanation`, async () => {
    const { terminal, tally } = await read(events, { loss: () => 'a double fault' });
    assert.equal(terminal.type, 'lost');
    assert.deepEqual([tally.faults, [...tally.explained]], [0, [['lost: a double fault', 1]]]);
  });

  test(`a generation is lost ${what}, without one`, async () => {
    const { terminal, tally } = await read(events, { loss: () => undefined });
    assert.equal(terminal, undefined);
    assert.equal(tally.refused, 1);
  });
}
