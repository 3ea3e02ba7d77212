// The oracle of the llama engine: it takes what the reference says, however the wire merges it, and nothing else.
import assert from 'node:assert/strict';
import test from 'node:test';
import { CheckedLog, Tally, crcOf } from './checked_log.mjs';
import { LlamaScript } from './llama_script.mjs';
import { Random } from './random.mjs';

// Two choices: one of three events, whose second has two tokens, and one of one event.
const RESPONSE = {
  lastSeq: 6,
  choices: [
    { text: 'aü.', reason: 'length', ends: new Map([[1, { length: 1, tokens: 1 }], [2, { length: 2, tokens: 3 }], [3, { length: 3, tokens: 4 }]]) },
    { text: 'b', reason: 'stop', ends: new Map([[1, { length: 1, tokens: 1 }]]) },
  ],
};

const started = { type: 'started', gen: 'gen_x', seq: 1 };
const delta = (seq, text, more = {}) => ({ type: 'delta', gen: 'gen_x', choice: 0, seq, text, tokens: 1, ...more });
const end = (text, index, reason) => ({ index, finish_reason: reason, text_bytes: Buffer.byteLength(text), crc32: crcOf(Buffer.from(text)) });
const done = { type: 'done', gen: 'gen_x', seq: 6, events: 6, choices: [end('aü.', 0, 'length'), end('b', 1, 'stop')] };
const whole = [started, delta(2, 'a'), delta(3, 'b', { choice: 1 }), delta(4, 'ü', { tokens: 2 }), delta(5, '.'), done];

async function scriptOf() {
  const script = new LlamaScript(new Random(1, 'request'), { request: 1, key: 'k' });
  script.choices = 2;
  return script.prepare({ response: async () => RESPONSE });
}

/** Reads events on one connection; `judge` as in CheckedLog. */
function read(script, events, judge) {
  const tally = new Tally();
  const log = new CheckedLog(script, tally, judge);
  const on = log.connection('sse');
  for (const event of events) log.apply(event, on);
  return tally;
}

const right = {
  'event by event': whole,
  'with the choices in another order': [started, delta(2, 'b', { choice: 1 }), delta(3, 'a'), delta(4, 'ü', { tokens: 2 }), delta(5, '.'), done],
  'with merged events': [started, delta(2, 'b', { choice: 1 }), delta(5, 'aü.', { first_seq: 3, tokens: 4 }), done],
};
for (const [what, events] of Object.entries(right)) {
  test(`a reading is right ${what}`, async () => assert.deepEqual(read(await scriptOf(), events).firstFaults, []));
}

const wrong = {
  'another character': [started, delta(2, 'x')],
  'a character of the other choice': [started, delta(2, 'b')],
  'a character twice': [started, delta(2, 'a'), delta(3, 'a')],
  'a character too few': [started, delta(2, 'a'), delta(3, '.')],
  'a character too many in an event': [started, delta(2, 'aü', { tokens: 3 })],
  'another number of tokens': [started, delta(2, 'a'), delta(3, 'ü')],
  'a choice that does not exist': [started, delta(2, 'a', { choice: 2 })],
  'more than the reference': [...whole.slice(0, -1), delta(6, 'x')],
  'an early end': [started, delta(2, 'a'), { ...done, seq: 3, events: 3, choices: [end('a', 0, 'length'), end('', 1, 'stop')] }],
  'another reason': [...whole.slice(0, -1), { ...done, choices: [end('aü.', 0, 'stop'), end('b', 1, 'stop')] }],
};
for (const [what, events] of Object.entries(wrong)) {
  test(`a reading is wrong: ${what}`, async () => assert.equal(read(await scriptOf(), events).faults > 0, true));
}

test('a second reading may merge in another way, but has the same text', async () => {
  const script = await scriptOf();
  assert.deepEqual(read(script, right['with merged events']).firstFaults, []);
  assert.equal(read(script, right['event by event']).faults > 0, true, 'the choices have changed places');
});

test('after a gap the text goes on from the snapshot, which must be that of the reference', async () => {
  const judge = { gap: () => 'a double fault', moved: () => {} };
  const gap = (text) => ({ type: 'gap', gen: 'gen_x', requested_after: 4, snapshot: { seq: 3, choices: [{ index: 0, text }, { index: 1, text: 'b' }] } });
  const after = [delta(4, 'ü', { tokens: 2 }), delta(5, '.'), done];
  assert.deepEqual(read(await scriptOf(), [...whole.slice(0, 4), gap('a'), ...after], judge).firstFaults, []);
  assert.equal(read(await scriptOf(), [...whole.slice(0, 4), gap('x'), ...after], judge).faults > 0, true);
});
