// A response of the OpenAI-compatible API, read through one bridge after the other: its numbers are the log's own.
import assert from 'node:assert/strict';
import test from 'node:test';
import { startRunnel } from './processes.mjs';

const TOKENS = 80;

function ask(runnel, more = {}) {
  return fetch(`${runnel.url}/v1/responses`, {
    method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: 'scripted', input: 'go', background: true, stream: true, instructions: 'be brief', ...more,
      metadata: { 'scripted.tokens': `${TOKENS}`, 'scripted.tokens_per_second': '40', 'scripted.first_token_ms': '0' },
    }),
  });
}

/** The whole messages of a stream, each as its text; also of one that is cut. */
async function* messages(answer) {
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for await (const bytes of answer.body) {
      const parts = (rest + decoder.decode(bytes, { stream: true })).split('\n\n');
      rest = parts.pop();
      yield* parts.map((part) => part.replaceAll(': hb\n', ''));
    }
  } catch (error) {
    if (error.code === 'ERR_ASSERTION') throw error;
  }
}
const dataOf = (message) => JSON.parse(message.slice(message.indexOf('\ndata: ') + 7));

test('kill -9 of the bridge, three times: the numbers go on, and a replay is the same bytes', async (t) => {
  const runnel = await startRunnel();
  t.after(() => runnel.stop());
  const seen = [];
  let answer = await ask(runnel);
  assert.equal(answer.status, 200);
  for (const kill_at of [15, 35, 55, Infinity]) {
    for await (const message of messages(answer)) {
      seen.push(message);
      if (seen.length === kill_at) await runnel.sse.kill('SIGKILL');
    }
    if (kill_at === Infinity) break;
    await runnel.sse.start();
    const { id } = dataOf(seen[0]).response;
    answer = await fetch(`${runnel.url}/v1/responses/${id}?stream=true&starting_after=${seen.length - 1}`);
    assert.equal(answer.status, 200);
  }
  assert.deepEqual(seen.map((message) => dataOf(message).sequence_number), seen.map((_, i) => i));
  // Four events of the beginning, the deltas, four of the end.
  assert.equal(seen.length, TOKENS + 8);
  const last = dataOf(seen.at(-1));
  assert.equal(last.type, 'response.completed');
  assert.equal(last.response.instructions, 'be brief');
  const replay = [];
  const again = await fetch(`${runnel.url}/v1/responses/${last.response.id}?stream=true`);
  for await (const message of messages(again)) replay.push(message);
  assert.deepEqual(replay, seen);
});

test('a response that is not in the background is cancelled when its client goes', async (t) => {
  const runnel = await startRunnel();
  t.after(() => runnel.stop());
  const abort = new AbortController();
  const answer = await fetch(`${runnel.url}/v1/responses`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, signal: abort.signal,
    body: JSON.stringify({ model: 'scripted', input: 'go', stream: true,
      metadata: { 'scripted.tokens': '100000', 'scripted.tokens_per_second': '50' } }),
  });
  let id;
  for await (const message of messages(answer)) {
    id ??= dataOf(message).response.id;
    if (message.startsWith('event: response.output_text.delta')) abort.abort();
  }
  const deadline = Date.now() + 10_000;
  let response;
  do {
    assert.ok(Date.now() < deadline, 'it was not cancelled');
    response = await (await fetch(`${runnel.url}/v1/responses/${id}`)).json();
  } while (response.status !== 'cancelled');
  assert.equal(response.background, false);
});
