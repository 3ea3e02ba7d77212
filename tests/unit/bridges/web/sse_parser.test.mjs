import assert from 'node:assert/strict';
import test from 'node:test';
import { SseParser } from '../../../../bridges/web/runnel.js';

const bytes = (text) => (typeof text === 'string' ? new TextEncoder().encode(text) : Uint8Array.from(text));
const message = (data, type = 'message', lastEventId = '') => ({ type, data, lastEventId });

// name, stream, messages, and where they differ from '' and undefined: last event id, retry.
const ROWS = [
  ['a message', 'data: a\n\n', [message('a')]],
  ['two messages', 'data: a\n\ndata: b\n\n', [message('a'), message('b')]],
  ['CR', 'data: a\r\rdata: b\r\r', [message('a'), message('b')]],
  ['CRLF', 'data: a\r\n\r\ndata: b\r\n\r\n', [message('a'), message('b')]],
  ['mixed line ends', 'data: a\r\n\rdata: b\n\r\ndata: c\r\n\n', [message('a'), message('b'), message('c')]],
  ['LF CR is two line ends', 'data: a\n\rdata: b\n\n', [message('a'), message('b')]],
  ['lines are joined by LF', 'data: a\ndata: b\r\ndata:c\n\n', [message('a\nb\nc')]],
  ['one space is removed, not two', 'data:  a \n\n', [message(' a ')]],
  ['no space', 'data:a\n\n', [message('a')]],
  ['a tab is no space', 'data:\ta\n\n', [message('\ta')]],
  ['colons in the value', 'data: {"a":"b:c"}\n\n', [message('{"a":"b:c"}')]],
  ['comments', ': hb\n\n:\ndata: a\n: between\ndata: b\n\n', [message('a\nb')]],
  ['only comments', ': hb\n\n: hb\n\n', []],
  ['type', 'event: delta\ndata: a\n\ndata: b\n\n', [message('a', 'delta'), message('b')]],
  ['the last type counts', 'event: x\nevent: y\ndata: a\n\n', [message('a', 'y')]],
  ['a type without data is forgotten', 'event: x\n\ndata: a\n\n', [message('a')]],
  ['field without colon', 'data\n\ndata\ndata\n\n', [message(''), message('\n')]],
  ['empty data lines', 'data:\ndata:\n\n', [message('\n')]],
  ['one empty data line', 'data:\n\n', [message('')]],
  ['unknown fields', 'foo: bar\ndata: a\nfoo\n\n', [message('a')]],
  ['names are case-sensitive', 'Data: a\n DATA: b\n\n', []],
  ['a leading space makes another field', ' data: a\n\n', []],
  ['id sticks', 'id: 1\ndata: a\n\ndata: b\n\n', [message('a', 'message', '1'), message('b', 'message', '1')], '1'],
  ['id without data moves the cursor', 'id: 7\n\n', [], '7'],
  ['empty id resets', 'id: 1\ndata: a\n\nid\ndata: b\n\n', [message('a', 'message', '1'), message('b')]],
  ['id with NULL is ignored', 'id: 1\n\nid: a\0b\ndata: a\n\n', [message('a', 'message', '1')], '1'],
  ['id of an unfinished event does not count', 'id: 1\n\nid: 2\ndata: a', [], '1'],
  ['id with a colon', 'id: gen_x:17\ndata: a\n\n', [message('a', 'message', 'gen_x:17')], 'gen_x:17'],
  ['retry', 'retry: 1500\n\n', [], '', 1500],
  ['retry that is no number', 'retry: 1e3\nretry: -1\nretry: 2s\nretry:\n\n', []],
  ['BOM', '\ufeffdata: a\n\n', [message('a')]],
  ['a second BOM belongs to the name', '\ufeff\ufeffdata: a\n\ndata: b\n\n', [message('b')]],
  ['a BOM inside is data', 'data: \ufeffa\n\n', [message('\ufeffa')]],
  ['not ended by a blank line', 'data: a\n\ndata: b\n', [message('a')]],
  ['nothing', '', []],
  ['blank lines only', '\n\r\n\r\r\n', []],
  ['multi-byte', 'data: naïve 🌊 überlaufen 水\n\n', [message('naïve 🌊 überlaufen 水')]],
  ['NEL and LS are no line ends', 'data: a\u0085b\u2028c\n\n', [message('a\u0085b\u2028c')]],
  ['bad UTF-8 is replaced', [100, 97, 116, 97, 58, 255, 254, 10, 10], [message('\ufffd\ufffd')]],
  ['a cut character at the end', [...bytes('data: a\n\n'), 0xf0, 0x9f], [message('a')]],
];

for (const [name, stream, messages, id = '', retry] of ROWS) {
  const whole = bytes(stream);

  test(`SSE: ${name}`, () => {
    const parser = new SseParser();
    assert.deepEqual(parser.push(whole), messages);
    assert.equal(parser.lastEventId, id);
    assert.equal(parser.retryMs, retry);
  });

  test(`SSE: ${name}, at every split point`, () => {
    for (let at = 0; at <= whole.length; at++) {
      const parser = new SseParser();
      const got = [...parser.push(whole.subarray(0, at)), ...parser.push(whole.subarray(at))];
      assert.deepEqual(got, messages, `split at ${at}`);
      assert.equal(parser.lastEventId, id);
    }
  });

  test(`SSE: ${name}, byte by byte with empty chunks between`, () => {
    const parser = new SseParser();
    const got = [...whole].flatMap((byte) => [...parser.push(Uint8Array.of(byte)), ...parser.push(new Uint8Array(0))]);
    assert.deepEqual(got, messages);
    assert.equal(parser.retryMs, retry);
  });
}

test('SSE: a line without end does not fill the memory', () => {
  const parser = new SseParser();
  const chunk = new Uint8Array(1024 * 1024).fill(97);
  assert.throws(() => {
    for (let n = 0; n < 20; n++) parser.push(chunk);
  }, { code: 'bad_event' });
});

test('SSE: comments are given as they come, and are no messages', () => {
  const comments = [];
  const parser = new SseParser((comment) => comments.push(comment));
  const bytes = new TextEncoder().encode(': hb\n: hb {"stage":"queued"}\r\n:\ndata: :no\n\n');
  const messages = [];
  for (const byte of bytes) messages.push(...parser.push(Uint8Array.of(byte)));
  assert.deepEqual(comments, [' hb', ' hb {"stage":"queued"}', '']);
  assert.deepEqual(messages.map(({ data }) => data), [':no']);
});
