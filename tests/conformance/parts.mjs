// What the clients' checks of reasoning and tool calls have in common: the tools, the scripts of the scripted engine,
// and a fetch that changes the script from request to request, as a model would.
import assert from 'node:assert/strict';
import { script } from './testing.mjs';

const parameters = {
  type: 'object', properties: { words: { type: 'string' } }, required: ['words'], additionalProperties: false,
};
export const PARAMETERS = parameters;
export const TOOLS = ['get_weather', 'get_time'].map((name) => (
  { type: 'function', function: { name, description: `calls ${name}`, parameters } }));
export const NAMED = { type: 'function', function: { name: 'get_weather' } };
export const PIXEL = 'data:image/png;base64,' +
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==';

/** Metadata for a response of these parts, for example `reasoning:4,text:5`. */
export const parts = (list) => script({ parts: list });
export const ONE_CALL = parts('call:get_weather:3');
// Their fragments alternate.
export const TWO_CALLS = parts('text:3,call:get_weather+get_time:4');
// One after the other. The helpers of the openai packages take a change of index for the end of a call.
export const TWO_IN_TURN = parts('text:3,call:get_weather:4,call:get_time:4');
export const THINKING = parts('reasoning:4,text:5');

/** The arguments of a scripted call are an object with words. */
export function checkArguments(text, words) {
  const value = typeof text === 'string' ? JSON.parse(text) : text;
  assert.deepEqual(Object.keys(value), ['words']);
  assert.equal(value.words.split(' ').length, words);
  return value;
}

/** A fetch whose nth request asks for the nth script; the bodies of the requests are in `bodies`. */
export function scriptedFetch(...scripts) {
  const bodies = [];
  const fetchScripted = (url, options) => {
    const body = JSON.parse(options.body);
    const metadata = scripts[Math.min(bodies.length, scripts.length - 1)];
    bodies.push(body);
    return fetch(url, { ...options, body: JSON.stringify({ ...body, metadata }) });
  };
  return Object.assign(fetchScripted, { bodies });
}

/** The second request of a tool loop has the call of the assistant and its result, in this order. */
export function checkHistory({ messages }, id, result) {
  const asked = messages.findIndex(({ role }) => role === 'assistant');
  assert.equal(messages[asked].tool_calls[0].id, id);
  checkArguments(messages[asked].tool_calls[0].function.arguments, 3);
  assert.deepEqual([messages[asked + 1].role, messages[asked + 1].tool_call_id], ['tool', id]);
  assert.match(JSON.stringify(messages[asked + 1].content), new RegExp(result));
}
