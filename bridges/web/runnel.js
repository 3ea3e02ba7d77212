// The browser's end of Runnel: reads a generation over SSE, WebSocket or polling, and loses none of it.
//
//   const answer = stream({ model: 'm', messages: [{ role: 'user', content: 'Hello' }] });
//   for await (const event of answer) if (event.type === 'delta') show(event.text);
//   const { text, verified } = await answer.result;
//
// A generation is an append-only log of numbered events, and all that a reader holds is a cursor into it. So a broken
// connection, a switch of transport and a reload of the page are one operation: read the log after `seq`. `done`
// carries the length and the CRC-32 of each text; a result exists only once they agree with what was read.
//
// The address to import; what it is made of is in runnel/, one idea a file, and needs no build step.

import { RunnelError } from './runnel/errors.js';
import { GenerationStream } from './runnel/generation_stream.js';

export { crc32 } from './runnel/crc32.js';
export { SseParser } from './runnel/sse_parser.js';
export { Transcript } from './runnel/transcript.js';
export { GenerationStream, RunnelError };

/** Starts a generation and reads it. `request` is the body of POST /v1/generations, or a question as a string. */
export function stream(request, options = {}) {
  const body = typeof request === 'string' ? { messages: [{ role: 'user', content: request }] } : request;
  return new GenerationStream(body, undefined, { ...options, after: 0, texts: undefined });
}

/** Reads a generation that exists, after `options.after`; give `options.texts` up to there to have it verified. */
export function attach(generationId, options = {}) {
  if (typeof generationId !== 'string' || !generationId) {
    throw new RunnelError('invalid_argument', 'the id of a generation is missing');
  }
  return new GenerationStream(undefined, generationId, options);
}
