// The options of a reader and their defaults.
import { systemClock } from './clock.js';

// crypto.randomUUID exists in secure contexts only, but the library must work on plain HTTP in a local network.
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** @param {import('../runnel.js').StreamOptions} options */
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
    // Two heartbeats of the bridges, and time for the second one to arrive.
    idleTimeoutMs: options.idleTimeoutMs ?? 35_000,
    pollWaitSeconds: options.pollWaitSeconds ?? 20,
    pollMinMs: options.pollMinMs ?? 250,
    startedAt: options.startedAt,
    onStatus: options.onStatus ?? (() => {}),
    onNotice: options.onNotice ?? (() => {}),
    onPart: options.onPart ?? (() => {}),
    onBuffered: options.onBuffered ?? 'notify',
    window: options.window ?? globalThis,
    clock: options.clock ?? systemClock,
    random: options.random ?? Math.random,
    fetch: options.fetch ?? ((url, init) => globalThis.fetch(url, init)),
    WebSocket: options.WebSocket ?? globalThis.WebSocket,
  };
}
