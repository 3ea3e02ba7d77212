// Strict readers of the native SSE route, in the manner of fetch and in the manner of an EventSource.
import { Break, Wrong, refusal } from '../faults.mjs';
import { cursorOf, placeOf } from './cursor.mjs';
import { bodyText, chunks, request } from './http.mjs';

const utf8 = new TextDecoder('utf-8', { fatal: true });
const JSON_HEADERS = { 'content-type': 'application/json' };

/** Starts a generation, or finds the one with the same key. Returns its id. */
export async function start(origin, script, options) {
  const response = await request(`${origin}/v1/generations`, {
    ...options, method: 'POST', headers: { ...JSON_HEADERS, 'idempotency-key': script.key },
    body: JSON.stringify(script.body()),
  });
  const text = await bodyText(response);
  if (response.statusCode !== 201) throw refusal('POST', response.statusCode, text);
  const { id } = JSON.parse(text);
  const { location } = response.headers;
  if (location !== `/v1/generations/${id}`) throw new Wrong(`location is ${location}`);
  return id;
}

/** The blocks between blank lines as {id, event, data, retry}; a block that is cut is not dispatched. */
export async function* parse(source) {
  let rest = Buffer.alloc(0);
  let block = {};
  for await (const chunk of source) {
    rest = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
    let end;
    while ((end = rest.indexOf(10)) >= 0) {
      const line = utf8.decode(rest.subarray(0, end));
      rest = rest.subarray(end + 1);
      if (line === '') {
        if (block.data !== undefined) yield block;
        block = {};
      } else if (!line.startsWith(':')) {
        const [, name, value] = /^(id|event|data|retry): (.*)$/.exec(line) ?? [];
        if (name === undefined || block[name] !== undefined) throw new Wrong(`an invalid line: ${line}`);
        block[name] = value;
      }
    }
  }
}

/** The events of a response to its end; the last must be the terminal event. */
export async function* events(response) {
  if (!/^text\/event-stream(;|$)/.test(response.headers['content-type'] ?? '')) {
    throw new Wrong(`content-type is ${response.headers['content-type']}`);
  }
  let first = true;
  let ended = false;
  for await (const block of parse(chunks(response))) {
    const event = JSON.parse(block.data);
    // What a reader in the middle of a log needs to know first. It has no place in the log.
    if (first && event.type === 'attached' && block.event === 'attached' && block.id === undefined && block.retry !== undefined) {
      first = false;
      yield event;
      continue;
    }
    if (block.id !== cursorOf(event.gen, event.seq, event.epoch) || block.event !== event.type) {
      throw new Wrong(`id ${block.id} and event ${block.event} of ${block.data}`);
    }
    if ((block.retry !== undefined) !== first) throw new Wrong(`retry is ${block.retry} in ${block.data}`);
    first = false;
    ended = event.type === 'done' || event.type === 'failed';
    yield event;
  }
  if (!ended) throw new Break('a normal end without a terminal event');
}

/**
 * Reads after a cursor, or starts a generation. `epoch`: of the event at `after`. `style`: fetch sends the cursor in the URL, or repeats its POST with
 * Last-Event-ID; eventsource sends it in the header, and its URL has an old cursor. Ends without an event if all events
 * were read before.
 */
export async function* readSse(origin, { script, id, after, epoch, style, ...options }) {
  let response;
  if (id === undefined && style === 'eventsource') id = await start(origin, script, options);
  const accept = { accept: 'text/event-stream' };
  if (id === undefined || style === 'post') {
    response = await request(`${origin}/v1/generations`, {
      ...options, method: 'POST', body: JSON.stringify(script.body()),
      headers: { ...JSON_HEADERS, ...accept, 'idempotency-key': script.key,
        ...(id !== undefined && { 'last-event-id': cursorOf(id, after, epoch) }) },
    });
  } else if (style === 'eventsource') {
    response = await request(`${origin}/v1/generations/${id}/events?after=0`,
      { ...options, headers: { ...accept, ...(after > 0 && { 'last-event-id': cursorOf(id, after, epoch) }) } });
  } else {
    response = await request(`${origin}/v1/generations/${id}/events?after=${placeOf(after, epoch)}`, { ...options, headers: accept });
  }
  try {
    if (response.statusCode === 204) return;
    if (response.statusCode !== 200) throw refusal('SSE', response.statusCode, await bodyText(response));
    yield* events(response);
  } finally {
    response.destroy();
  }
}
