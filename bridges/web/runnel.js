// Runnel's browser library: reads a generation over SSE, WebSocket or polling without losing a token.
//
//   const response = stream({ model: 'm', messages: [{ role: 'user', content: 'Hello' }] });
//   for await (const event of response) if (event.type === 'delta') show(event.text);
//   const { text, verified } = await response.result;
//
// A generation is an append-only log of numbered events, and a reader holds a cursor into it. A broken connection, a
// switch of transport and a reload of the page are therefore one operation: read the log after `seq`. `done` carries
// the length and the CRC-32 of each text and part. A result exists only once they agree with what was read.
//
// Import this file. Its parts are in runnel/, one idea per file, and need no build step. README.md has the reference.

import { RunnelError } from './runnel/errors.js';
import { GenerationStream } from './runnel/generation_stream.js';

export { crc32 } from './runnel/crc32.js';
export { SseParser } from './runnel/sse_parser.js';
export { Transcript } from './runnel/transcript.js';
export { GenerationStream, RunnelError };

/**
 * Starts a generation and reads it.
 *
 * @param {import('./runnel.js').GenerationRequest | string} request body of POST /v1/generations, or a user's message
 * @param {import('./runnel.js').StreamOptions} [options]
 */
export function stream(request, options = {}) {
  const body = typeof request === 'string' ? { messages: [{ role: 'user', content: request }] } : request;
  return new GenerationStream(body, undefined, {
    ...options, after: 0, epoch: 0, texts: undefined, parts: undefined,
  });
}

/**
 * Reads an existing generation after `options.after`. It is verified only with what was read up to
 * there: `options.texts`, and `options.parts` if there is anything but text.
 *
 * @param {string} generationId
 * @param {import('./runnel.js').AttachOptions} [options]
 */
export function attach(generationId, options = {}) {
  if (typeof generationId !== 'string' || !generationId) {
    throw new RunnelError('invalid_argument', 'generationId is missing');
  }
  return new GenerationStream(undefined, generationId, options);
}
