// Images, tools and reasoning through the upstream engine, with the official `openai` package as the client.
import assert from 'node:assert/strict';
import test from 'node:test';
import OpenAI from 'openai';
import { MODEL, startFakeServer } from '../e2e/fake_server.mjs';
import { startRunnel } from '../e2e/processes.mjs';
import { PIXEL, TOOLS } from './parts.mjs';

const call = (index, id, name, text) => ({ tool_calls: [{ index, id, type: 'function', function: { name, arguments: text } }] });
const more = (index, text) => ({ tool_calls: [{ index, function: { arguments: text } }] });

/** What the server says, by the content of the last message: deltas, and the finish reason. */
const REPLIES = {
  think: [[{ reasoning_content: 'Hm' }, { reasoning: '.' }, { content: 'Yes.' }], 'stop'],
  calls: [[call(0, 'a', 'get_weather', ''), more(0, '{"words":"x"}'), call(1, 'b', 'get_time', '{"words":"y"}')], 'tool_calls'],
  'one index': [[call(0, 'a', 'get_weather', '{"words":"x"}'), call(0, 'b', 'get_time', '{"words":"y"}')], 'tool_calls'],
  truncated: [[call(0, 'a', 'get_weather', ''), more(0, '{"words":"x')], 'tool_calls'],
  refuse: [[{ refusal: 'No.' }], 'stop'],
};

function respond(response, { messages }) {
  const { content } = messages.at(-1);
  const [deltas, finish] = REPLIES[Array.isArray(content) ? 'think' : content];
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const send = (choice) => response.write(`data: ${JSON.stringify(
    { id: 'c', object: 'chat.completion.chunk', created: 1, model: MODEL, choices: [{ index: 0, delta: {}, finish_reason: null, ...choice }] })}\n\n`);
  for (const delta of deltas) send({ delta });
  send({ finish_reason: finish });
  response.end('data: [DONE]\n\n');
}

test('parts through the upstream engine, as the openai package reads them', async (t) => {
  const server = await startFakeServer(respond);
  t.after(() => server.close());
  const runnel = await startRunnel({ engine: ['--engine=upstream', `--upstream_url=${server.url}`] });
  t.after(() => runnel.stop());
  const client = new OpenAI({ apiKey: 'any-key', baseURL: `${runnel.url}/v1`, maxRetries: 0 });
  const ask = (content, options = {}) => ({ model: MODEL, messages: [{ role: 'user', content }], ...options });
  const create = async (content, options) => (await client.chat.completions.create(ask(content, options))).choices[0];
  const streamed = async (content, options) =>
    (await client.chat.completions.stream(ask(content, options)).finalChatCompletion()).choices[0];
  const sent = () => server.requests.at(-1).body;

  await t.test('an image is forwarded as it came', async () => {
    const content = [{ type: 'text', text: 'what?' }, { type: 'image_url', image_url: { url: PIXEL, detail: 'low' } }];
    assert.equal((await create(content)).message.content, 'Yes.');
    assert.deepEqual(sent().messages[0].content, content);
  });
  await t.test('tools are forwarded as they came', async () => {
    const options = { tools: TOOLS, tool_choice: 'required', parallel_tool_calls: false, reasoning_effort: 'low' };
    await create('calls', options);
    for (const [key, value] of Object.entries(options)) assert.deepEqual(sent()[key], value);
    const text = JSON.stringify(sent());
    assert.equal(text.split('reasoning_effort').length, 2, text);
  });
  await t.test('calls, also of a server that has one index for all', async () => {
    for (const content of ['calls', 'one index']) {
      for (const read of [create, streamed]) {
        const { message, finish_reason: finish } = await read(content, { tools: TOOLS });
        assert.equal(finish, 'tool_calls');
        assert.deepEqual(message.tool_calls.map(({ id, function: { name, arguments: text } }) => [id, name, text]),
          [['a', 'get_weather', '{"words":"x"}'], ['b', 'get_time', '{"words":"y"}']], content);
      }
    }
  });
  await t.test('a call that was cut is not reported as complete, although the server does', async () => {
    const { message, finish_reason: finish } = await create('truncated', { tools: TOOLS });
    assert.deepEqual([finish, message.tool_calls], ['length', undefined]);
    assert.equal((await streamed('truncated')).finish_reason, 'length');
    const native = await fetch(`${runnel.url}/v1/generations`, { method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
      body: JSON.stringify({ messages: [{ role: 'user', content: 'truncated' }] }) });
    const done = JSON.parse((await native.text()).split('event: done\ndata: ')[1].split('\n')[0]);
    assert.equal(done.choices[0].finish_reason, 'length');
    assert.equal(done.choices[0].parts[0].complete, false);
  });
  await t.test('reasoning of both names, and refusals', async () => {
    const { message } = await create('think');
    assert.deepEqual([message.reasoning_content, message.reasoning, message.content], ['Hm.', 'Hm.', 'Yes.']);
    const refused = await create('refuse');
    assert.deepEqual([refused.message.refusal, refused.message.content], ['No.', null]);
    assert.equal((await streamed('refuse')).message.refusal, 'No.');
  });
});
