// Conversations of several responses: previous_response_id and item_reference over replicas, bridges and principals.
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { startRunnel } from './processes.mjs';

async function call(url, method, path, body, key = '') {
  const response = await fetch(`${url}/v1/responses${path}`, {
    method, headers: { 'content-type': 'application/json', ...(key && { authorization: `Bearer ${key}` }) },
    body: body && JSON.stringify(body),
  });
  return { status: response.status, ...await response.json() };
}
function ask(url, more, key) {
  return call(url, 'POST', '', {
    model: 'scripted', input: 'one more',
    metadata: { 'scripted.parts': 'text:3', 'scripted.tokens_per_second': '2000', 'scripted.first_token_ms': '0' },
    ...more,
  }, key);
}
const replicaOf = ({ id }) => id.slice(5, 9);

test('every link of a conversation is found, on whichever replica it is and through any bridge', async (t) => {
  const runnel = await startRunnel({ replicas: 2, sseBridges: 2 });
  t.after(() => runnel.stop());
  let previous = await ask(runnel.url);
  assert.equal(previous.usage.input_tokens, 2);
  const first = previous;
  for (let turn = 1; turn < 8; ++turn) {
    const url = runnel.urls[turn % 2];
    const responses = await Promise.all(
      Array.from({ length: 8 }, () => ask(url, { previous_response_id: previous.id })));
    // Each turn has two words of the request and three of the response.
    for (const { usage } of responses) assert.equal(usage.input_tokens, turn * 5 + 2);
    const last = previous;
    previous = responses.find((response) => replicaOf(response) !== replicaOf(last));
    assert.ok(previous, 'all responses are on the replica of the one before');
    assert.equal(previous.previous_response_id, last.id);
  }
  const referring = await ask(runnel.urls[1], {
    input: [{ type: 'item_reference', id: first.output[0].id }, { type: 'item_reference', id: previous.output[0].id }] });
  assert.equal(referring.usage.input_tokens, 6);
  assert.equal((await call(runnel.url, 'DELETE', `/${first.id}`)).deleted, true);
  const broken = await ask(runnel.urls[1], { previous_response_id: previous.id });
  assert.deepEqual([broken.status, broken.error.code], [404, 'previous_response_not_found']);
  assert.ok(broken.error.message.includes(first.id) && broken.error.message.includes('store: false'), broken.error.message);
});

test('what another principal owns does not exist', async (t) => {
  const keys = join(tmpdir(), `runnel-keys-conversations-${process.pid}`);
  writeFileSync(keys, 'key-of-ann ann\nkey-of-bob bob\n', { mode: 0o600 });
  t.after(() => rmSync(keys));
  const runnel = await startRunnel({ bridge: [`--api_keys_file=${keys}`] });
  t.after(() => runnel.stop());
  const anns = await ask(runnel.url, {}, 'key-of-ann');
  const unknown = anns.id.replace(/.{8}$/, 'aaaaaaaa');
  assert.equal((await ask(runnel.url, { previous_response_id: anns.id }, 'key-of-ann')).status, 'completed');
  const message = async (id) => {
    const refused = await ask(runnel.url, { previous_response_id: id }, 'key-of-bob');
    assert.deepEqual([refused.status, refused.error.code], [404, 'previous_response_not_found']);
    return refused.error.message.replace(id, 'ID');
  };
  assert.equal(await message(anns.id), await message(unknown));
  const item = async (id) => {
    const refused = await ask(runnel.url, { input: [{ type: 'item_reference', id }] }, 'key-of-bob');
    assert.deepEqual([refused.status, refused.error.code, refused.error.param], [404, 'item_not_found', 'input[0].id']);
    return refused.error.message.replace(id, 'ID');
  };
  assert.equal(await item(anns.output[0].id), await item(anns.output[0].id.replace(/.{8}$/, 'aaaaaaaa')));
});

test('a large conversation is read in pieces, up to the limit of a body', async (t) => {
  const runnel = await startRunnel({ bridge: ['--max_body_bytes=2097152'] });
  t.after(() => runnel.stop());
  const large = `${'word '.repeat(199_999)}end`;
  let previous = await ask(runnel.url, { input: large });
  previous = await ask(runnel.url, { previous_response_id: previous.id });
  assert.equal(previous.usage.input_tokens, 200_000 + 3 + 2);
  previous = await ask(runnel.url, { previous_response_id: previous.id, input: large });
  assert.equal(previous.usage.input_tokens, 400_000 + 8);
  const refused = await ask(runnel.url, { previous_response_id: previous.id, input: large });
  assert.deepEqual([refused.status, refused.error.param], [400, 'previous_response_id']);
});
