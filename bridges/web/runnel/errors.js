// Failures, and which of them are worth another try.

/** @typedef {{ status?: number, retryable?: boolean, retryAfterMs?: number, cause?: unknown }} Details */

/**
 * Every failure of this library. `retryable` says whether the same request may succeed if it is made again. The
 * library itself reconnects to a generation that is running.
 */
export class RunnelError extends Error {
  /** @type {string | undefined} */
  generationId;
  /**
   * What had been read, not verified.
   * @type {{ texts: string[], after: number, epoch?: number } | undefined}
   */
  partial;

  /**
   * @param {string} code
   * @param {string} [message]
   * @param {Details} [details]
   */
  constructor(code, message, { status, retryable = false, retryAfterMs, cause } = {}) {
    super(message ?? code, cause === undefined ? undefined : { cause });
    this.name = 'RunnelError';
    this.code = code;
    this.status = status;
    this.retryable = retryable;
    this.retryAfterMs = retryAfterMs;
  }
}

/**
 * A failure that a reader recovers from by reconnecting.
 *
 * @param {string} code
 * @param {string} message
 * @param {Details} [details]
 */
export const broken = (code, message, details) => new RunnelError(code, message, { retryable: true, ...details });

/** The replica that kept the generation is gone. Starting it again may succeed; attaching to it again cannot. */
export const GENERATION_LOST = 'generation_lost';

/** Turns generation_not_found into generation_lost if this reader has already read from the generation (`seen`). */
export function lostIfSeen(error, seen) {
  if (error.code !== 'generation_not_found' || !seen) return error;
  const { status } = error;
  return new RunnelError(GENERATION_LOST, 'the generation was lost with the replica that kept it', {
    status, retryable: true, cause: error,
  });
}

// 500 is among them because a start carries an idempotency key, and every other request only reads or cancels.
const RETRYABLE_STATUS = new Set([408, 425, 429, 500, 502, 503, 504]);

/**
 * Makes a RunnelError from the error object of a response body or of a WebSocket `error` frame.
 *
 * @param {any} error
 * @param {number} status
 * @param {{ shouldRetry?: boolean, retryAfterMs?: number }} [details]
 */
export function refusal(error, status, { shouldRetry, retryAfterMs } = {}) {
  const code = typeof error?.code === 'string' && error.code ? error.code : `http_${status}`;
  const message = typeof error?.message === 'string' ? error.message : `refused with status ${status}`;
  return new RunnelError(code, message, {
    status,
    retryable: shouldRetry ?? (code === GENERATION_LOST || RETRYABLE_STATUS.has(status)),
    retryAfterMs,
  });
}

/** Milliseconds of `retry-after-ms` or `retry-after`, or undefined. */
export function parseRetryAfter(headers) {
  const ms = Number.parseFloat(headers.get('retry-after-ms') ?? '');
  if (ms >= 0) return ms;
  const value = (headers.get('retry-after') ?? '').trim();
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}
