// The page's view of reasoning, tool calls and refusals.
import assert from 'node:assert/strict';
import test from 'node:test';
import { PartsView } from '../../../../bridges/web/page/parts_view.js';
import { fakeDocument } from './fake_dom.mjs';

globalThis.document = fakeDocument;

function setUp() {
  const before = fakeDocument.createElement('div');
  const after = fakeDocument.createElement('div');
  return { before, after, view: new PartsView(before, after) };
}

test('PartsView: reasoning is folded before the text, a call is a card after it', () => {
  const { before, after, view } = setUp();
  view.note({ choice: 0, index: 0, kind: 'reasoning', state: 'open' });
  view.append({ part: 0, kind: 'reasoning', content: 'H' });
  view.append({ part: 0, kind: 'reasoning', content: 'm.' });
  view.note({ choice: 0, index: 2, kind: 'tool_call', state: 'open', id: 'call_a', name: 'weather' });
  view.append({ part: 2, kind: 'tool_call', content: '{"city":' });
  assert.equal(before.childNodes[0].tag, 'details');
  assert.equal(before.textContent, 'ReasoningHm.');
  assert.equal(after.textContent, 'weather()being written{"city":');
  // The name is only in the delta that opens the call.
  view.note({ choice: 0, index: 2, kind: 'tool_call', state: 'open' });
  view.append({ part: 2, kind: 'tool_call', content: '"Oslo"}' });
  view.note({ choice: 0, index: 2, kind: 'tool_call', state: 'complete', content: '{"city":"Oslo"}', name: 'weather' });
  assert.equal(after.textContent, 'weather()complete{"city":"Oslo"}');
  assert.equal(after.childNodes.length, 1);
});

test('PartsView: a call that was cut says so', () => {
  const { after, view } = setUp();
  view.note({ choice: 0, index: 1, kind: 'tool_call', state: 'incomplete', content: '{"x":', name: 'rm' });
  assert.match(after.textContent, /^rm\(\)incomplete: do not execute/);
  assert.equal(after.childNodes[0].dataset.state, 'incomplete');
});

test('PartsView: text and other choices are not shown, nor is a kind interpreted as HTML', () => {
  const { before, after, view } = setUp();
  view.note({ choice: 0, index: 0, kind: 'text', state: 'open' });
  view.note({ choice: 1, index: 0, kind: 'reasoning', state: 'open' });
  view.append({ part: 0, text: 'x' });
  assert.equal(before.textContent + after.textContent, '');
  view.note({ choice: 0, index: 3, kind: '<b>', state: 'open' });
  assert.equal(after.childNodes[0].childNodes[0].textContent, '<b>');
});

test('PartsView: a gap replaces the parts', () => {
  const { before, after, view } = setUp();
  view.note({ choice: 0, index: 0, kind: 'reasoning', state: 'open' });
  view.append({ part: 0, kind: 'reasoning', content: 'old' });
  view.replace([{ index: 0, kind: 'refusal', content: 'No' }]);
  assert.equal(before.textContent, '');
  assert.equal(after.textContent, 'RefusalNo');
  view.append({ part: 0, kind: 'refusal', content: '!' });
  assert.equal(after.textContent, 'RefusalNo!');
});
