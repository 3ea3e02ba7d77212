// A response of the OpenAI-compatible API, read through one bridge after another, and through two at the same time: its
// sequence numbers follow from the log.
import assert from 'node:assert/strict';
import test from 'node:test';
import { startRunnel } from './processes.mjs';

const TOKENS = 80;

function ask(runnel, more = {}, url = runnel.url) {
  return fetch(`${url}/v1/responses`, {
    method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: 'scripted', input: 'go', background: true, stream: true, instructions: 'be brief', ...more,
      metadata: { 'scripted.tokens': `${TOKENS}`, 'scripted.tokens_per_second': '40', 'scripted.first_token_ms': '0' },
    }),
  });
}

/** The complete messages of a stream, also of one that is cut, each as its text. */
async function* messages(response) {
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for await (const bytes of response.body) {
      const parts = (rest + decoder.decode(bytes, { stream: true })).split('\n\n');
      rest = parts.pop();
      yield* parts.map((part) => part.replaceAll(': hb\n', ''));
    }
  } catch (error) {
    if (error.code === 'ERR_ASSERTION') throw error;
  }
}
/** All messages of the response after message `after`, through the bridge at `url`. */
async function readAfter(url, id, after) {
  const response = await fetch(`${url}/v1/responses/${id}?stream=true&starting_after=${after}`);
  assert.equal(response.status, 200);
  const read = [];
  for await (const message of messages(response)) read.push(message);
  return read;
}
const dataOf = (message) => JSON.parse(message.slice(message.indexOf('\ndata: ') + 7));

test('kill -9 of the bridge, three times: the numbers continue, and a replay has the same bytes', async (t) => {
  const runnel = await startRunnel();
  t.after(() => runnel.stop());
  const seen = [];
  let response = await ask(runnel);
  assert.equal(response.status, 200);
  for (const kill_at of [15, 35, 55, Infinity]) {
    for await (const message of messages(response)) {
      seen.push(message);
      if (seen.length === kill_at) await runnel.sse.kill('SIGKILL');
    }
    // On a slow machine the response may end before the last kill.
    if (kill_at === Infinity || dataOf(seen.at(-1)).type === 'response.completed') break;
    await runnel.sse.start();
    const { id } = dataOf(seen[0]).response;
    response = await fetch(`${runnel.url}/v1/responses/${id}?stream=true&starting_after=${seen.length - 1}`);
    assert.equal(response.status, 200);
  }
  assert.deepEqual(seen.map((message) => dataOf(message).sequence_number), seen.map((_, i) => i));
  // Four events at the start, the deltas, four at the end.
  assert.equal(seen.length, TOKENS + 8);
  const last = dataOf(seen.at(-1));
  assert.equal(last.type, 'response.completed');
  assert.equal(last.response.instructions, 'be brief');
  const replay = [];
  const again = await fetch(`${runnel.url}/v1/responses/${last.response.id}?stream=true`);
  for await (const message of messages(again)) replay.push(message);
  assert.deepEqual(replay, seen);
});

test('half over one bridge and half over another, both alive: one sequence, the same bytes from both', async (t) => {
  const runnel = await startRunnel({ sseBridges: 2 });
  t.after(() => runnel.stop());
  for (const [first, second] of [runnel.urls, [...runnel.urls].reverse()]) {
    const seen = [];
    for await (const message of messages(await ask(runnel, {}, first))) {
      seen.push(message);
      // Leaves the stream in the middle: a background response continues without its reader.
      if (seen.length === TOKENS / 2) break;
    }
    const { id } = dataOf(seen[0]).response;
    seen.push(...await readAfter(second, id, seen.length - 1));
    assert.deepEqual(seen.map((message) => dataOf(message).sequence_number), seen.map((_, i) => i));
    assert.equal(seen.length, TOKENS + 8);
    assert.equal(dataOf(seen.at(-1)).type, 'response.completed');
    // Between the messages for `started`, the text, and those for the end.
    for (const after of [0, 1, 3, 4, TOKENS / 2, TOKENS + 3, TOKENS + 6]) {
      const [a, b] = await Promise.all([readAfter(first, id, after), readAfter(second, id, after)]);
      assert.deepEqual(a, seen.slice(after + 1));
      assert.deepEqual(b, a);
    }
  }
});

test('two readers on two bridges read the same while the response is generated', async (t) => {
  const runnel = await startRunnel({ sseBridges: 2 });
  t.after(() => runnel.stop());
  const mine = messages(await ask(runnel));
  const first = (await mine.next()).value;
  const { id } = dataOf(first).response;
  const others = readAfter(runnel.urls[1], id, 0);
  const rest = [];
  for await (const message of mine) rest.push(message);
  assert.deepEqual(rest.map((message) => dataOf(message).sequence_number), rest.map((_, i) => i + 1));
  assert.equal(rest.length, TOKENS + 7);
  assert.deepEqual(await others, rest);
});

test('a response that is not in the background is cancelled when its client disconnects', async (t) => {
  const runnel = await startRunnel();
  t.after(() => runnel.stop());
  const abort = new AbortController();
  const stream = await fetch(`${runnel.url}/v1/responses`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, signal: abort.signal,
    body: JSON.stringify({ model: 'scripted', input: 'go', stream: true,
      metadata: { 'scripted.tokens': '100000', 'scripted.tokens_per_second': '50' } }),
  });
  let id;
  for await (const message of messages(stream)) {
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
