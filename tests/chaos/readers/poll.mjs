// A strict reader by polling, with long polls or without.
import http from 'node:http';
import https from 'node:https';
import { Wrong, refusal } from '../faults.mjs';
import { placeOf } from './cursor.mjs';
import { bodyText, request } from './http.mjs';
import { start } from './sse.mjs';

/** One poll: {status, last_seq, events}. */
export async function poll(origin, { id, after, epoch, waitSeconds, ...options }) {
  const wait = waitSeconds === undefined ? '' : `&wait=${waitSeconds}`;
  const response = await request(`${origin}/v1/generations/${id}?after=${placeOf(after, epoch)}${wait}`, options);
  const text = await bodyText(response);
  if (response.statusCode !== 200) throw refusal('poll', response.statusCode, text);
  return JSON.parse(text);
}

export async function* readPoll(origin, { script, id, after, epoch = 0, waitSeconds = 1, ...options }) {
  const { Agent } = origin.startsWith('https:') ? https : http;
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  try {
    id ??= await start(origin, script, { ...options, agent });
    let last = after;
    let era = epoch;
    for (;;) {
      const result = await poll(origin, { ...options, agent, id, after: last, epoch: era, waitSeconds });
      const ended = result.status === 'done' || result.status === 'failed';
      const known = result.events[0]?.type === 'gap' ? 0 : last;
      if (result.id !== id || result.last_seq < known) {
        throw new Wrong(`a poll after ${last}: ${JSON.stringify(result)}`);
      }
      // A gap replaces everything.
      if (known > 0 && result.parts !== undefined) yield { type: 'attached', gen: id, parts: result.parts };
      for (const event of result.events) {
        yield event;
        last = event.seq;
        era = event.epoch ?? 0;
        if (event.type === 'done' || event.type === 'failed') return;
      }
      if (ended && result.last_seq === last) return;
    }
  } finally {
    agent.destroy();
  }
}
