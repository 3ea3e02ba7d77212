// How things fail, and which failures are worth another try.

/**
 * Every failure of this module. `retryable` says whether making the same request again may succeed; reconnecting to
 * a generation that still runs is done here and is never the caller's task.
 */
export class RunnelError extends Error {
  constructor(code, message, { status, retryable = false, retryAfterMs, cause } = {}) {
    super(message ?? code, cause === undefined ? undefined : { cause });
    this.name = 'RunnelError';
    this.code = code;
    this.status = status;
    this.retryable = retryable;
    this.retryAfterMs = retryAfterMs;
  }
}

export const broken = (code, message, more) => new RunnelError(code, message, { retryable: true, ...more });

/** The replica that kept the generation is gone. Starting it again may succeed; attaching to it again may not. */
export const GENERATION_LOST = 'generation_lost';

/** The same from a server that does not remember the generation: `seen` says that this reader has read from it. */
export function lostIfSeen(error, seen) {
  if (error.code !== 'generation_not_found' || !seen) return error;
  const { status } = error;
  return new RunnelError(GENERATION_LOST, 'the generation was lost with the replica that kept it', {
    status, retryable: true, cause: error,
  });
}

// 500 is among them because a start carries an idempotency key and everything else only reads.
const RETRYABLE_STATUS = new Set([408, 425, 429, 500, 502, 503, 504]);

/** `error` is the error object of a response body or of a WebSocket `error` frame. */
export function refusal(error, status, { shouldRetry, retryAfterMs } = {}) {
  const code = typeof error?.code === 'string' && error.code ? error.code : `http_${status}`;
  const message = typeof error?.message === 'string' ? error.message : `refused with status ${status}`;
  return new RunnelError(code, message, {
    status,
    retryable: shouldRetry ?? (code === GENERATION_LOST || RETRYABLE_STATUS.has(status)),
    retryAfterMs,
  });
}

export function parseRetryAfter(headers) {
  const ms = Number.parseFloat(headers.get('retry-after-ms') ?? '');
  if (ms >= 0) return ms;
  const value = (headers.get('retry-after') ?? '').trim();
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}
