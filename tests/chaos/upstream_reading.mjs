// Reads generations of the mock server through a bridge, and compares each with the plan of its request.
import { crcOf } from './checked_log.mjs';
import { bodyText, chunks, request } from './readers/http.mjs';
import { events, parse } from './readers/sse.mjs';
import { promptOf, readTokens } from './mock_text.mjs';

const IDLE_MS = 30_000;
const JSON_HEADERS = { 'content-type': 'application/json' };

/** What a response was: how it ended, and its text. `fault`: what it must not be. */
const complete = (text) => ({ end: 'complete', text });
const failed = (text, error) => ({ end: 'failed', text, code: error.code, retryable: error.retryable, message: error.message });
const wrong = (text, fault) => ({ end: 'wrong', text, fault });

const post = (url, body, headers = {}) =>
  request(url, { method: 'POST', idleMs: IDLE_MS, headers: { ...JSON_HEADERS, ...headers }, body: JSON.stringify(body) });

/** Reads one generation of the native API. `cancelAt`: the token after which it is cancelled. */
export async function readNative(url, plan, { asChat, cancelAt }) {
  const input = asChat ? { messages: [{ role: 'user', content: promptOf(plan) }] } : { prompt: promptOf(plan) };
  const response = await post(`${url}/v1/generations`, input, { accept: 'text/event-stream' });
  if (response.statusCode !== 200) return failed('', JSON.parse(await bodyText(response)).error);
  let text = '';
  let last = 0;
  for await (const event of events(response)) {
    const first = event.first_seq ?? event.seq;
    if (first !== last + 1 || (event.type === 'started') !== (event.seq === 1)) {
      return wrong(text, `after event ${last}: ${JSON.stringify(event)}`);
    }
    last = event.seq;
    if (event.type === 'delta') {
      text += event.text;
      if (cancelAt !== undefined && readTokens(plan, text).tokens >= cancelAt) {
        cancelAt = undefined;
        await bodyText(await post(`${url}/v1/generations/${event.gen}/cancel`, {}));
      }
    } else if (event.type === 'failed') {
      return failed(text, event.error);
    } else if (event.type === 'done') {
      return nativeEnd(text, event);
    }
  }
  return wrong(text, 'no terminal event');
}

function nativeEnd(text, { seq, events: count, choices: [choice], usage }) {
  const bytes = Buffer.from(text);
  if (count !== seq || choice.text_bytes !== bytes.length || choice.crc32 !== crcOf(bytes)) {
    return wrong(text, `not verified: ${JSON.stringify({ seq, count, choice })}`);
  }
  if (choice.finish_reason === 'cancelled') return { end: 'cancelled', text };
  return { ...complete(text), finish: choice.finish_reason, usage };
}

/** Reads one generation of the chat route. */
export async function readChat(url, plan) {
  const response = await post(`${url}/v1/chat/completions`, {
    model: 'mock', stream: true, stream_options: { include_usage: true }, messages: [{ role: 'user', content: promptOf(plan) }],
  });
  if (response.statusCode !== 200) return failed('', JSON.parse(await bodyText(response)).error);
  let text = '';
  let finish;
  let usage;
  let done = false;
  for await (const { data } of parse(chunks(response))) {
    if (done) return wrong(text, `after [DONE]: ${data}`);
    done = data === '[DONE]';
    if (done) continue;
    const chunk = JSON.parse(data);
    if (chunk.error) return failed(text, chunk.error);
    for (const choice of chunk.choices) {
      text += choice.delta.content ?? '';
      finish = choice.finish_reason ?? finish;
    }
    usage = chunk.usage ?? usage;
  }
  return done ? { ...complete(text), finish, usage } : wrong(text, 'an end without [DONE]');
}

/** Adds a fault to a response whose text is not that of its plan. */
export function check(plan, result) {
  const { tokens, rest } = readTokens(plan, result.text);
  if (result.fault !== undefined) return result;
  if (rest !== '') return wrong(result.text, `${result.end} with a wrong text after ${tokens} tokens: ${JSON.stringify(rest)}`);
  if (result.end !== 'complete') return result;
  const usage = [result.usage?.prompt_tokens, result.usage?.completion_tokens];
  if (tokens !== plan.tokens || result.finish !== 'stop') {
    return wrong(result.text, `complete after ${tokens} of ${plan.tokens} tokens, ${result.finish}`);
  }
  return usage[1] === tokens ? result : wrong(result.text, `usage ${usage} for ${tokens} tokens`);
}
