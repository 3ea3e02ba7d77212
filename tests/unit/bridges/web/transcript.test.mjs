import assert from 'node:assert/strict';
import test from 'node:test';
import { crc32, Transcript } from '../../../../bridges/web/runnel.js';
import { FakeGeneration, merge } from './fake_log.mjs';

const bytes = (text) => new TextEncoder().encode(text);
const delta = (seq, text, more) => ({ type: 'delta', seq, choice: 0, text, tokens: 1, ...more });

for (const [text, crc] of [
  ['', 0x00000000], ['123456789', 0xcbf43926], ['a', 0xe8b7be43], ['abc', 0x352441c2],
  ['The quick brown fox jumps over the lazy dog', 0x414fa339], ['\0\0\0\0', 0x2144df1c],
]) {
  test(`CRC-32 of ${JSON.stringify(text)} is zlib's`, () => assert.equal(crc32(bytes(text)), crc));
}

test('CRC-32 can be continued at any split', () => {
  const whole = bytes('naïve 🌊 queues');
  for (let at = 0; at <= whole.length; at++) {
    assert.equal(crc32(whole.subarray(at), crc32(whole.subarray(0, at))), crc32(whole));
  }
});

test('Transcript: the next event is applied, an earlier one is a repeat, a later one is missing', () => {
  const reader = new Transcript();
  assert.equal(reader.apply({ type: 'started', seq: 1 }), 'applied');
  assert.equal(reader.apply(delta(2, 'a')), 'applied');
  assert.equal(reader.apply(delta(2, 'a')), 'repeat');
  assert.equal(reader.apply(delta(4, 'c')), 'missing');
  assert.equal(reader.apply(delta(5, 'bcd', { first_seq: 3 })), 'applied');
  assert.equal(reader.apply(delta(4, 'c')), 'repeat');
  assert.equal(reader.apply(delta(5, 'bcd', { first_seq: 3 })), 'repeat');
  assert.equal(reader.apply(delta(9, 'x', { first_seq: 7 })), 'missing');
  assert.equal(reader.text(), 'abcd');
  assert.equal(reader.last, 5);
});

test('Transcript: first_seq 0 stands for seq', () => {
  assert.equal(new Transcript().apply(delta(1, 'a', { first_seq: 0 })), 'applied');
});

for (const [name, event] of Object.entries({
  'no seq': { seq: undefined }, 'seq 0': { seq: 0 }, 'negative': { seq: -1 }, 'not whole': { seq: 1.5 }, 'text': { seq: '1' },
  'unsafe': { seq: 2 ** 53 }, 'first after last': { seq: 1, first_seq: 2 }, 'no text': { seq: 1, text: undefined },
  'text is a number': { seq: 1, text: 1 }, 'choice is a name': { seq: 1, choice: '__proto__' },
  'choice is negative': { seq: 1, choice: -1 }, 'choice is huge': { seq: 1, choice: 1e9 },
})) {
  test(`Transcript: a malformed event throws and changes nothing: ${name}`, () => {
    const reader = new Transcript();
    assert.throws(() => reader.apply(delta(1, 'a', event)), { code: 'bad_event' });
    assert.equal(reader.last, 0);
    assert.equal(reader.text(), '');
  });
}

test('Transcript: an event that overlaps the cursor throws', () => {
  const reader = new Transcript({ after: 3 });
  assert.throws(() => reader.apply(delta(5, 'x', { first_seq: 2 })), { code: 'bad_event' });
});

function read(events, reader = new Transcript()) {
  for (const event of events) reader.apply(event);
  return reader;
}

test('Transcript: any mixture of merged and single events gives the same digest', () => {
  const { events } = new FakeGeneration().words(20).delta('other', 1).words(3).done();
  for (let at = 0; at < events.length; at++) {
    const mixed = [...merge(events.slice(0, at)), ...events.slice(at)];
    assert.equal(read(mixed).disagreement(events.at(-1)), undefined);
  }
});

test('Transcript: a difference from done is described', () => {
  const { events } = new FakeGeneration().words(5).done();
  const reader = read(events);
  const done = events.at(-1);
  const end = done.choices[0];
  assert.equal(reader.disagreement(done), undefined);
  assert.match(reader.disagreement({ ...done, events: 9 }), /9 logged/);
  assert.match(reader.disagreement({ ...done, events: undefined }), /logged/);
  assert.match(reader.disagreement({ ...done, choices: undefined }), /no choices/);
  assert.match(reader.disagreement({ ...done, choices: [] }), /not in done/);
  assert.match(reader.disagreement({ ...done, choices: [end, { ...end, index: 1 }] }), /choice 1: 0 bytes/);
  assert.match(reader.disagreement({ ...done, choices: [{ ...end, text_bytes: 1 }] }), /bytes/);
  assert.match(reader.disagreement({ ...done, choices: [{ ...end, crc32: '00000000' }] }), /CRC-32/);
  assert.match(reader.disagreement({ ...done, choices: [{ ...end, crc32: undefined }] }), /CRC-32/);
});

test('Transcript: every lost, doubled or swapped delta is found', () => {
  const { events } = new FakeGeneration().words(12).done();
  const done = events.at(-1);
  const texts = events.slice(1, -1).map((event) => event.text);
  const check = (mutated) => {
    const reader = new Transcript();
    mutated.forEach((text, i) => reader.apply(delta(i + 1, text)));
    assert.notEqual(reader.disagreement(done), undefined);
  };
  for (let i = 0; i + 1 < texts.length; i++) {
    check(texts.filter((_, n) => n !== i));
    check(texts.flatMap((text, n) => (n === i ? [text, text] : [text])));
    check(texts.map((text, n) => (n === i ? texts[i + 1] : n === i + 1 ? texts[i] : text)));
  }
});

test('Transcript: a gap replaces the text, and the digest can be checked again', () => {
  const generation = new FakeGeneration().words(4);
  const reader = new Transcript({ after: 99 });
  assert.equal(reader.whole, false);
  assert.equal(reader.apply(generation.gap(99)), 'applied');
  assert.equal(reader.last, generation.lastSeq);
  generation.delta(' end').done();
  read(generation.after({ seq: 5, epoch: 0 }), reader);
  assert.equal(reader.disagreement(generation.events.at(-1)), undefined);
  assert.equal(reader.whole, true);
  assert.equal(reader.text(), generation.choices[0]);
});

test('Transcript: a gap with seq 0 clears the text, and the log follows', () => {
  const { events, choices } = new FakeGeneration().words(6).done();
  const reader = read(events.slice(0, 3));
  const gap = { type: 'gap', seq: 0, requested_after: 99, first_available: 1,
    snapshot: { seq: 0, choices: [{ index: 0, text: '' }] } };
  assert.equal(reader.apply(gap), 'applied');
  assert.equal(reader.last, 0);
  assert.equal(reader.text(), '');
  for (const event of events) assert.equal(reader.apply(event), 'applied');
  assert.equal(reader.whole, true);
  assert.equal(reader.disagreement(events.at(-1)), undefined);
  assert.equal(reader.text(), choices[0]);
});

test('Transcript: a gap without a snapshot goes back to the beginning', () => {
  const reader = read(new FakeGeneration().words(4).events);
  assert.equal(reader.apply({ type: 'gap', seq: 2, snapshot: null }), 'missing');
  assert.equal(reader.last, 0);
  assert.equal(reader.text(), '');
});

test('Transcript: after a cursor, the digest needs the texts; without them only the length is checked', () => {
  const { events, choices } = new FakeGeneration().words(6).done();
  const done = events.at(-1);
  const before = read(events.slice(0, 4)).text();
  const resumed = read(events.slice(4), new Transcript({ after: 4, texts: [before] }));
  assert.equal(resumed.whole, true);
  assert.equal(resumed.disagreement(done), undefined);
  assert.equal(resumed.text(), choices[0]);
  const blind = read(events.slice(4), new Transcript({ after: 4 }));
  assert.equal(blind.whole, false);
  assert.equal(blind.disagreement(done), undefined);
});
