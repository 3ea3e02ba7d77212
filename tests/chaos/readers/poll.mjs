// A strict reader by polling, with long polls or without.
import http from 'node:http';
import https from 'node:https';
import { Wrong, refusal } from '../faults.mjs';
import { bodyText, request } from './http.mjs';
import { start } from './sse.mjs';

/** One poll: {status, last_seq, events}. */
export async function poll(origin, { id, after, waitSeconds, ...options }) {
  const wait = waitSeconds === undefined ? '' : `&wait=${waitSeconds}`;
  const response = await request(`${origin}/v1/generations/${id}?after=${after}${wait}`, options);
  const text = await bodyText(response);
  if (response.statusCode !== 200) throw refusal('poll', response.statusCode, text);
  return JSON.parse(text);
}

export async function* readPoll(origin, { script, id, after, waitSeconds = 1, ...options }) {
  const { Agent } = origin.startsWith('https:') ? https : http;
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  try {
    id ??= await start(origin, script, { ...options, agent });
    let last = after;
    for (;;) {
      const answer = await poll(origin, { ...options, agent, id, after: last, waitSeconds });
      const ended = answer.status === 'done' || answer.status === 'failed';
      const known = answer.events[0]?.type === 'gap' ? 0 : last;
      if (answer.id !== id || answer.last_seq < known) {
        throw new Wrong(`a poll after ${last}: ${JSON.stringify(answer)}`);
      }
      for (const event of answer.events) {
        yield event;
        last = event.seq;
        if (event.type === 'done' || event.type === 'failed') return;
      }
      if (ended && answer.last_seq === last) return;
    }
  } finally {
    agent.destroy();
  }
}
