// Reasoning, tool calls and refusals beside the text.
import assert from 'node:assert/strict';
import test from 'node:test';
import { Transcript } from '../../../../bridges/web/runnel.js';
import { FakeGeneration, merge } from './fake_log.mjs';
import { collect, READ_FAULT, reached, rejection, setUp, TRANSPORTS } from './testing.mjs';

const WEATHER = '{"city":"Oslo 🌊"}';

/** Reasoning, text, two calls whose deltas alternate, and text again. */
function fourParts(generation = new FakeGeneration()) {
  return generation
    .other(0, 'reasoning', 'H').other(0, 'reasoning', 'm é.')
    .delta('Let me ', 0, { part: 1 }).delta('see.', 0, { part: 1 })
    .other(2, 'tool_call', '', { id: 'call_a', name: 'weather' }).other(2, 'tool_call', WEATHER.slice(0, 8))
    .other(3, 'tool_call', '{', { id: 'call_b', name: 'time' }).other(2, 'tool_call', WEATHER.slice(8))
    .other(3, 'tool_call', '}').delta(' Wait.', 0, { part: 4 });
}

const PARTS = [
  { index: 0, kind: 'reasoning', content: 'Hm é.', state: 'complete' },
  { index: 1, kind: 'text', content: 'Let me see.', state: 'complete' },
  { index: 2, kind: 'tool_call', content: WEATHER, state: 'complete', id: 'call_a', name: 'weather' },
  { index: 3, kind: 'tool_call', content: '{}', state: 'complete', id: 'call_b', name: 'time' },
  { index: 4, kind: 'text', content: ' Wait.', state: 'complete' },
];

function read(events, reader = new Transcript()) {
  for (const event of events) reader.apply(event);
  return reader;
}

test('Parts: any mixture of merged and single events gives the same parts', () => {
  const { events } = fourParts().done('tool_calls');
  for (let at = 0; at <= events.length; at++) {
    const reader = read([...merge(events.slice(0, at)), ...merge(events.slice(at))]);
    assert.equal(reader.disagreement(events.at(-1)), undefined);
    reader.settle(events.at(-1));
    assert.deepEqual(reader.parts(), PARTS);
    assert.equal(reader.text(), 'Let me see. Wait.');
    assert.equal(reader.whole, true);
  }
});

test('Parts: a plain text is one text part', () => {
  const { events, choices } = new FakeGeneration().words(5).done();
  const reader = read(events);
  reader.settle(events.at(-1));
  assert.deepEqual(reader.parts(), [{ index: 0, kind: 'text', content: choices[0], state: 'complete' }]);
  assert.deepEqual(reader.details, [[]]);
});

test('Parts: every difference from done is found, in bytes, digest, kind, name and number', () => {
  const { events } = fourParts().done('tool_calls');
  const done = events.at(-1);
  const [choice] = done.choices;
  const changed = (index, change) => ({
    ...done, choices: [{ ...choice, parts: choice.parts.map((part) => (part.index === index ? { ...part, ...change } : part)) }],
  });
  const reader = read(events);
  for (const { index } of choice.parts) {
    assert.match(reader.disagreement(changed(index, { crc32: '00000000' })), /CRC-32/);
    assert.match(reader.disagreement(changed(index, { crc32: undefined })), /CRC-32/);
    assert.match(reader.disagreement(changed(index, { bytes: 1 })), /bytes/);
    assert.match(reader.disagreement(changed(index, { kind: 'refusal' })), /refusal/);
    assert.match(reader.disagreement(changed(index, { index: 9 })), /not in done/);
  }
  assert.match(reader.disagreement(changed(2, { id: 'call_b' })), /another call/);
  assert.match(reader.disagreement(changed(2, { name: 'rm' })), /another call/);
  const more = [...choice.parts, { index: 5, kind: 'tool_call', bytes: 0, crc32: '00000000', id: 'x', name: 'y' }];
  assert.match(reader.disagreement({ ...done, choices: [{ ...choice, parts: more }] }), /part 5 was not read/);
  assert.match(reader.disagreement({ ...done, choices: [{ ...choice, parts: undefined }] }), /not in done/);
  assert.match(reader.disagreement({ ...done, choices: [{ ...choice, parts: 7 }] }), /malformed/);
});

test('Parts: every lost, doubled or swapped delta of a part is found', () => {
  const { events } = fourParts().done('tool_calls');
  const deltas = events.slice(1, -1);
  const check = (mutated) => {
    const reader = new Transcript();
    try {
      mutated.forEach((event, i) => reader.apply({ ...event, seq: i + 1 }));
    } catch (error) {
      return assert.equal(error.code, 'bad_event');
    }
    return assert.notEqual(reader.disagreement(events.at(-1)), undefined);
  };
  deltas.forEach((delta, i) => {
    if (delta.content === '') return;
    check(deltas.filter((_, n) => n !== i));
    check(deltas.flatMap((each, n) => (n === i ? [each, each] : [each])));
  });
});

for (const [name, event] of Object.entries({
  'no content': { content: undefined }, 'content is a number': { content: 7 }, 'part is negative': { part: -1 },
  'part is a name': { part: '__proto__' }, 'part is huge': { part: 1024 }, 'kind is a number': { kind: 7 },
  'kind changes': { part: 1, kind: 'refusal' },
})) {
  test(`Parts: a malformed delta throws and changes nothing: ${name}`, () => {
    const reader = read(fourParts().events.slice(0, 5));
    const before = reader.parts();
    assert.throws(() => reader.apply({ ...fourParts().events[1], seq: 6, ...event }), { code: 'bad_event' });
    assert.deepEqual(reader.parts(), before);
    assert.equal(reader.last, 5);
  });
}

test('Parts: a call is complete only if done, the finish reason and its arguments agree', () => {
  const rows = [
    ['{}', 'tool_calls', true, 'complete'], ['', 'stop', true, 'complete'], ['{"a":1}', 'length', true, 'complete'],
    ['{}', 'tool_calls', false, 'incomplete'], ['{}', 'tool_calls', undefined, 'incomplete'],
    ['{}', 'cancelled', true, 'incomplete'], ['{}', 'content_filter', true, 'incomplete'],
    ['{"a":', 'tool_calls', true, 'incomplete'], ['{}{}', 'tool_calls', true, 'incomplete'],
    ['[]', 'tool_calls', true, 'incomplete'], ['null', 'tool_calls', true, 'incomplete'],
    ['"x"', 'stop', true, 'incomplete'], ['{}', 'tool_calls', 'true', 'incomplete'],
  ];
  for (const [content, finishReason, complete, state] of rows) {
    const { events } = new FakeGeneration().other(0, 'tool_call', content, { id: 'c', name: 'f' }).done(finishReason);
    events.at(-1).choices[0].parts[0].complete = complete;
    const reader = read(events);
    assert.equal(reader.disagreement(events.at(-1)), undefined);
    reader.settle(events.at(-1));
    assert.equal(reader.parts()[0].state, state, `${content} ${finishReason} ${complete}`);
  }
});

test('Parts: a cursor continues at every event, in the middle of every part', () => {
  const generation = fourParts().done('tool_calls');
  const { events } = generation;
  for (let at = 1; at < events.length; at++) {
    const first = read(events.slice(0, at));
    const second = new Transcript(JSON.parse(JSON.stringify({ after: at, texts: first.texts, parts: first.details })));
    if (generation.opened(at)) second.attach(generation.opened(at));
    read(events.slice(at), second);
    assert.equal(second.disagreement(events.at(-1)), undefined, `after ${at}`);
    second.settle(events.at(-1));
    assert.deepEqual(second.parts(), PARTS, `after ${at}`);
    assert.equal(second.whole, true);
  }
});

test('Parts: a choice without output at a cursor or a gap may begin with any part', () => {
  const reasoning = { type: 'delta', seq: 3, choice: 1, part: 0, kind: 'reasoning', text: '', content: 'Hm', tokens: 1 };
  const snapshot = { seq: 2, choices: [{ index: 0, text: 'a' }, { index: 1, text: '' }] };
  const readers = [
    new Transcript({ after: 2, texts: ['a', ''], parts: [[], []] }),
    read([{ type: 'gap', seq: 2, snapshot }]),
  ];
  for (const reader of readers) {
    assert.deepEqual(reader.parts(1), []);
    assert.equal(reader.apply(reasoning), 'applied');
    assert.deepEqual(reader.parts(1), [{ index: 0, kind: 'reasoning', content: 'Hm', state: 'open' }]);
    assert.deepEqual(reader.parts(0), [{ index: 0, kind: 'text', content: 'a', state: 'open' }]);
  }
});

test('Parts: without the parts before a cursor, calls that began there are named but never complete', () => {
  const generation = fourParts().done('tool_calls');
  const { events } = generation;
  for (const cursor of [{ after: 8, texts: ['Let me see.'] }, { after: 8 }]) {
    for (const table of [generation.opened(8), undefined]) {
      const reader = new Transcript(cursor);
      if (table) reader.attach(table);
      read(events.slice(8), reader);
      assert.equal(reader.disagreement(events.at(-1)), undefined);
      reader.settle(events.at(-1));
      assert.equal(reader.whole, false);
      assert.equal(reader.details, undefined);
      const calls = reader.parts().filter(({ kind }) => kind === 'tool_call');
      assert.deepEqual(calls.map(({ id, name, state }) => [id, name, state]), [
        ['call_a', 'weather', 'incomplete'], ['call_b', 'time', 'incomplete'],
      ]);
    }
  }
});

test('Parts: a gap replaces the parts', () => {
  const generation = fourParts();
  const reader = new Transcript({ after: 99 });
  reader.apply(generation.gap(99));
  generation.done('tool_calls');
  read(generation.after({ seq: reader.last, epoch: 0 }), reader);
  assert.equal(reader.disagreement(generation.events.at(-1)), undefined);
  reader.settle(generation.events.at(-1));
  assert.deepEqual(reader.parts(), PARTS);
  assert.equal(reader.whole, true);
});

test('Parts: a client that does not know parts reads the text only', () => {
  const { events, choices } = fourParts().done('tool_calls');
  assert.equal(events.map((event) => event.text ?? '').join(''), choices[0]);
});

for (const transport of TRANSPORTS) {
  test(`${transport}: parts are cut at every event, and are complete`, async (t) => {
    const { server, attach } = await setUp(t);
    const generation = server.add(fourParts().done('tool_calls'));
    for (let endAfter = 1; endAfter < generation.lastSeq; endAfter++) {
      server.faults = [{ on: READ_FAULT[transport], endAfter, merge: endAfter % 2 === 0 }];
      const reported = new Map();
      const response = attach(generation.id, transport, {
        onPart: ({ choice, index, state }) => reported.set(`${choice}.${index}`, [...(reported.get(`${choice}.${index}`) ?? []), state]),
      });
      const { parts, toolCalls, text, verified, finishReasons } = await response.result;
      assert.deepEqual(parts, PARTS);
      assert.deepEqual(response.parts, PARTS);
      assert.deepEqual(toolCalls, [
        { id: 'call_a', name: 'weather', arguments: WEATHER }, { id: 'call_b', name: 'time', arguments: '{}' },
      ]);
      assert.equal(text, 'Let me see. Wait.');
      assert.equal(verified, true);
      assert.deepEqual(finishReasons, ['tool_calls']);
      assert.deepEqual([...reported], PARTS.map(({ index }) => [`0.${index}`, ['open', 'complete']]));
    }
  });

  test(`${transport}: a reader attaches in the middle of a call with the cursor of another`, async (t) => {
    const { server, attach } = await setUp(t);
    const generation = server.add(fourParts());
    const first = attach(generation.id, transport);
    await reached(first, 8);
    const { cursor } = first;
    first.close();
    generation.done('tool_calls');
    const { parts, verified } = await attach(cursor.id, transport, JSON.parse(JSON.stringify(cursor))).result;
    assert.deepEqual(parts, PARTS);
    assert.equal(verified, true);
    const blind = await attach(generation.id, transport, { after: 8 }).result;
    assert.equal(blind.verified, false);
    assert.deepEqual(blind.toolCalls, []);
    assert.equal(blind.parts[2].name, 'weather');
  });

  test(`${transport}: a call that was cut is not among the tool calls`, async (t) => {
    const { server, attach } = await setUp(t);
    const generation = server.add(new FakeGeneration()
      .other(0, 'tool_call', '{}', { id: 'a', name: 'f' }).other(1, 'tool_call', '{"x":', { id: 'b', name: 'g' }).done('length'));
    generation.events.at(-1).choices[0].parts[0].complete = true;
    const { toolCalls, parts, verified } = await attach(generation.id, transport).result;
    assert.deepEqual(toolCalls, [{ id: 'a', name: 'f', arguments: '{}' }]);
    assert.equal(parts[1].state, 'incomplete');
    assert.equal(verified, true);
  });

  test(`${transport}: parts of a response that fails or differs are incomplete`, async (t) => {
    const { server, attach } = await setUp(t);
    const states = [];
    const failed = server.add(fourParts().failed());
    const response = attach(failed.id, transport, { onPart: ({ state }) => states.push(state) });
    await rejection(response.result);
    assert.deepEqual(states, [...Array(5).fill('open'), ...Array(5).fill('incomplete')]);
    const wrong = server.add(fourParts().done('tool_calls'));
    wrong.events.at(-1).choices[0].parts[3].crc32 = '00000000';
    const reader = attach(wrong.id, transport);
    const { events } = await collect(reader);
    assert.equal((await rejection(reader.result)).code, 'digest_mismatch');
    assert.ok(events.every(({ type }) => type !== 'done'));
    assert.ok(reader.parts.every(({ state }) => state === 'incomplete'));
  });
}
