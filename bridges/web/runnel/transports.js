// The transports, and which one to try when another one is held back.

import { RunnelError } from './errors.js';
import { PollConnection } from './poll_connection.js';
import { SseConnection } from './sse_connection.js';
import { WebSocketConnection } from './websocket_connection.js';

export const CONNECTIONS = { sse: SseConnection, websocket: WebSocketConnection, poll: PollConnection };

/** Throws invalid_argument if `name` is not a transport, or lacks an option that it needs. */
export function checkTransport(name, options) {
  const refuse = (message) => {
    throw new RunnelError('invalid_argument', message);
  };
  if (!Object.hasOwn(CONNECTIONS, name)) refuse(`unknown transport: ${name}`);
  if (name === 'websocket') {
    if (!options.wsUrl) refuse('wsUrl is missing: set options.wsUrl or options.baseUrl');
    if (!options.WebSocket) refuse('WebSocket is not available: set options.WebSocket');
  } else if (!options.baseUrl) refuse('baseUrl is missing: set options.baseUrl');
}

/** The transport to use when an intermediary holds `name` back, or null. A poll's response is complete: it passes. */
export function wayAround(name, options) {
  if (name === 'sse' && options.wsUrl && options.WebSocket) return 'websocket';
  return name !== 'poll' && options.baseUrl ? 'poll' : null;
}
