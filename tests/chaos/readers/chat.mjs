// A reader of the chat route of OpenAI, which cannot resume: its stream must survive whatever happens behind the bridge.
import { Break, Refused, Wrong, refusal } from '../faults.mjs';
import { bodyText, chunks, request } from './http.mjs';
import { parse } from './sse.mjs';

/** The whole response: {text, finish}. An error in the stream is Refused. */
export async function readChatStream(origin, script, { idleMs }) {
  const { prompt, metadata, max_tokens: limit, seed } = script.body();
  const response = await request(`${origin}/v1/chat/completions`, {
    idleMs, method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'scripted', stream: true, seed, max_tokens: limit, metadata, messages: [{ role: 'user', content: prompt }] }),
  });
  if (response.statusCode !== 200) throw refusal('chat', response.statusCode, await bodyText(response));
  let text = '';
  let finish;
  for await (const { data } of parse(chunks(response))) {
    if (data === '[DONE]') {
      if (finish === undefined) throw new Wrong('[DONE] without a finish reason');
      return { text, finish };
    }
    const { error, choices = [] } = JSON.parse(data);
    if (error) throw new Refused('chat', error.code === 'generation_lost' ? 410 : 500, error.code, error.message);
    for (const { delta, finish_reason: reason } of choices) {
      text += delta.content ?? '';
      finish = reason ?? finish;
    }
  }
  throw new Break('an end without [DONE]');
}
