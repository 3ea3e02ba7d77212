// What a caller may set, with the values for what is left out.
import { systemClock } from './clock.js';
import { RunnelError } from './errors.js';
import { PollConnection } from './poll_connection.js';
import { SseConnection } from './sse_connection.js';
import { WebSocketConnection } from './websocket_connection.js';

export const CONNECTIONS = { sse: SseConnection, websocket: WebSocketConnection, poll: PollConnection };

// crypto.randomUUID exists in secure contexts only, and this must work on http://a-host-of-the-lan.
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export function readOptions(options) {
  const location = globalThis.location?.origin;
  const baseUrl = (options.baseUrl ?? options.sseUrl ?? location ?? '').replace(/\/+$/, '');
  const wsUrl = options.wsUrl ?? (baseUrl ? `${baseUrl.replace(/^http/, 'ws')}/v1/ws` : '');
  const token = options.token;
  return {
    baseUrl,
    wsUrl,
    transport: options.transport ?? 'sse',
    idempotencyKey: options.idempotencyKey ?? randomKey(),
    headers: options.headers ?? {},
    credentials: options.credentials ?? 'same-origin',
    token: async () => (typeof token === 'function' ? token() : token),
    maxRetries: options.maxRetries ?? 20,
    baseMs: options.backoffBaseMs ?? 250,
    capMs: options.backoffCapMs ?? 5000,
    maxRetryAfterMs: options.maxRetryAfterMs ?? 60_000,
    idleTimeoutMs: options.idleTimeoutMs ?? 45_000,
    pollWaitSeconds: options.pollWaitSeconds ?? 20,
    pollMinMs: options.pollMinMs ?? 250,
    startedAt: options.startedAt,
    onStatus: options.onStatus ?? (() => {}),
    clock: options.clock ?? systemClock,
    random: options.random ?? Math.random,
    fetch: options.fetch ?? ((...args) => globalThis.fetch(...args)),
    WebSocket: options.WebSocket ?? globalThis.WebSocket,
  };
}

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
