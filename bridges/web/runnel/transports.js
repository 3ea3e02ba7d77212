// The ways to read, and which one to try where another does not do.

import { RunnelError } from './errors.js';
import { PollConnection } from './poll_connection.js';
import { SseConnection } from './sse_connection.js';
import { WebSocketConnection } from './websocket_connection.js';

export const CONNECTIONS = { sse: SseConnection, websocket: WebSocketConnection, poll: PollConnection };

/** Throws invalid_argument if `name` is no transport, or cannot be had with these options. */
export function checkTransport(name, options) {
  const refuse = (message) => {
    throw new RunnelError('invalid_argument', message);
  };
  if (!Object.hasOwn(CONNECTIONS, name)) refuse(`unknown transport: ${name}`);
  if (name === 'websocket') {
    if (!options.wsUrl) refuse('wsUrl is missing');
    if (!options.WebSocket) refuse('there is no WebSocket here: give options.WebSocket');
  } else if (!options.baseUrl) refuse('baseUrl is missing');
}

/** What passes where `name` is held back, or null. No proxy holds back the whole answer to a poll. */
export function wayAround(name, options) {
  if (name === 'sse' && options.wsUrl && options.WebSocket) return 'websocket';
  return name !== 'poll' && options.baseUrl ? 'poll' : null;
}
