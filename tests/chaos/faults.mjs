// How reading can end otherwise than by the terminal event.

/** The connection is over, which says nothing about the generation: come back after the cursor. */
export class Break extends Error {
  constructor(kind, { silent = false, cause } = {}) {
    super(`the connection broke: ${kind}`, { cause });
    Object.assign(this, { kind, silent });
  }
}

/** The server said no. `retryable` as its status says. */
export class Refused extends Error {
  constructor(transport, status, code, message) {
    super(`${transport} refused: ${status} ${code} ${message ?? ''}`);
    Object.assign(this, { transport, status, code, retryable: status === 503 || status === 504 });
  }
}

/** A promise of the server is broken. */
export class Wrong extends Error {}

/** An object of the server's error form, or Wrong. */
export function refusal(transport, status, text) {
  let error;
  try {
    ({ error } = JSON.parse(text));
  } catch {
    error = undefined;
  }
  if (typeof error?.message !== 'string') return new Wrong(`${transport} answered ${status}, no error object: ${text}`);
  return new Refused(transport, status, error.code ?? '', error.message);
}
