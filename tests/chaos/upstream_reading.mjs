// Reads generations of the mock server through a bridge, and compares each with the plan of its request.
import { agrees } from './checked_log.mjs';
import { bodyText, chunks, request } from './readers/http.mjs';
import { events, parse } from './readers/sse.mjs';
import { kindsOf, promptOf, readTokens, textOfArguments } from './mock_text.mjs';

const IDLE_MS = 30_000;
const JSON_HEADERS = { 'content-type': 'application/json' };

/** What a response was: how it ended, and its text. `fault`: what it must not be. */
const complete = (text) => ({ end: 'complete', text });
const failed = (text, error) => ({ end: 'failed', text, code: error.code, retryable: error.retryable, message: error.message });
const wrong = (text, fault) => ({ end: 'wrong', text, fault });

const post = (url, body, headers = {}) =>
  request(url, { method: 'POST', idleMs: IDLE_MS, headers: { ...JSON_HEADERS, ...headers }, body: JSON.stringify(body) });

/** The output of a response: its parts, each as {kind, content}, with {id, name} of a call. */
class Output {
  parts = [];

  add(index, { kind, id, name }, content) {
    this.parts[index] ??= { kind, content: '', ...(id !== undefined && { id, name }) };
    this.parts[index].content += content;
  }

  /** The tokens of all parts. */
  get text() {
    return this.parts.map(({ kind, content }) => (kind === 'tool_call' ? textOfArguments(content) : content)).join('');
  }
}

/** Reads one generation of the native API. `cancelAt`: the token after which it is cancelled. */
export async function readNative(url, plan, { asChat, cancelAt }) {
  const input = asChat ? { messages: [{ role: 'user', content: promptOf(plan) }] } : { prompt: promptOf(plan) };
  const response = await post(`${url}/v1/generations`, input, { accept: 'text/event-stream' });
  if (response.statusCode !== 200) return failed('', JSON.parse(await bodyText(response)).error);
  const output = new Output();
  let last = 0;
  for await (const event of events(response)) {
    const first = event.first_seq ?? event.seq;
    if (first !== last + 1 || (event.type === 'started') !== (event.seq === 1)) {
      return wrong(output.text, `after event ${last}: ${JSON.stringify(event)}`);
    }
    last = event.seq;
    if (event.type === 'delta') {
      const { part = 0, kind = 'text', id, name } = event;
      output.add(part, { kind, id, name }, kind === 'text' ? event.text : event.content);
      if (cancelAt !== undefined && readTokens(plan, output.text).tokens >= cancelAt) {
        cancelAt = undefined;
        await bodyText(await post(`${url}/v1/generations/${event.gen}/cancel`, {}));
      }
    } else if (event.type === 'failed') {
      return failed(output.text, event.error);
    } else if (event.type === 'done') {
      return nativeEnd(output, event);
    }
  }
  return wrong(output.text, 'no terminal event');
}

function nativeEnd({ parts, text }, { seq, events: count, choices: [choice], usage }) {
  if (count !== seq || !agrees(parts, choice)) {
    return wrong(text, `not verified: ${JSON.stringify({ seq, count, choice })}`);
  }
  if (choice.finish_reason === 'cancelled') return { end: 'cancelled', text };
  return { ...complete(text), finish: choice.finish_reason, usage, parts };
}

/** Reads one generation of the chat route. */
export async function readChat(url, plan) {
  const response = await post(`${url}/v1/chat/completions`, {
    model: 'mock', stream: true, stream_options: { include_usage: true }, messages: [{ role: 'user', content: promptOf(plan) }],
  });
  if (response.statusCode !== 200) return failed('', JSON.parse(await bodyText(response)).error);
  const output = new Output();
  let finish;
  let usage;
  let done = false;
  for await (const { data } of parse(chunks(response))) {
    if (done) return wrong(output.text, `after [DONE]: ${data}`);
    done = data === '[DONE]';
    if (done) continue;
    const chunk = JSON.parse(data);
    if (chunk.error) return failed(output.text, chunk.error);
    for (const choice of chunk.choices) {
      addChatDelta(output, choice.delta);
      finish = choice.finish_reason ?? finish;
    }
    usage = chunk.usage ?? usage;
  }
  const { text } = output;
  const parts = output.parts.filter(() => true);
  return done ? { ...complete(text), finish, usage, parts } : wrong(text, 'an end without [DONE]');
}

// Places of the parts that a plan may have, in their order.
const REASONING = 0;
const TEXT = 1;
const CALLS = 2;

function addChatDelta(output, { content, reasoning_content: reasoning, tool_calls: calls = [] }) {
  if (reasoning) output.add(REASONING, { kind: 'reasoning' }, reasoning);
  if (content) output.add(TEXT, { kind: 'text' }, content);
  for (const { index, id, function: { name, arguments: piece } } of calls) {
    output.add(CALLS + index, { kind: 'tool_call', id, name }, piece);
  }
}

/** Adds a fault to a response whose output is not that of its plan. */
export function check(plan, result) {
  const { tokens, rest } = readTokens(plan, result.text);
  if (result.fault !== undefined) return result;
  if (rest !== '') return wrong(result.text, `${result.end} with a wrong text after ${tokens} tokens: ${JSON.stringify(rest)}`);
  if (result.end !== 'complete') return result;
  const usage = [result.usage?.prompt_tokens, result.usage?.completion_tokens];
  const kinds = result.parts.map(({ kind }) => kind);
  const expected = plan.parts ? kindsOf(plan, plan.tokens) : ['text'];
  const finish = expected.includes('tool_call') ? 'tool_calls' : 'stop';
  if (tokens !== plan.tokens || result.finish !== finish || kinds.join() !== expected.join()) {
    return wrong(result.text, `complete after ${tokens} of ${plan.tokens} tokens, ${result.finish}, ${kinds}`);
  }
  const calls = result.parts.filter(({ kind }) => kind === 'tool_call');
  const named = calls.every(({ id, name, content }, i) => id === `call_${plan.seed}_${i}` && name === `tool${i}` && content.endsWith('"}'));
  if (!named) return wrong(result.text, `calls ${JSON.stringify(calls)}`);
  return usage[1] === tokens ? result : wrong(result.text, `usage ${usage} for ${tokens} tokens`);
}
