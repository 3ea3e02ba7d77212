// The ways in which reading can end other than by the terminal event.

/** The connection is over, which says nothing about the generation: reconnect after the cursor. */
export class Break extends Error {
  constructor(kind, { silent = false, cause } = {}) {
    super(`the connection broke: ${kind}`, { cause });
    Object.assign(this, { kind, silent });
  }
}

/** The server rejected the request. `retryable` follows from the status. */
export class Refused extends Error {
  constructor(transport, status, code, message) {
    super(`${transport} rejected: ${status} ${code} ${message ?? ''}`);
    Object.assign(this, { transport, status, code, retryable: status === 503 || status === 504 });
  }
}

/** The server has broken the protocol. */
export class Wrong extends Error {}

/** Makes a Refused from the server's error object; Wrong if it is not one. */
export function refusal(transport, status, text) {
  let error;
  try {
    ({ error } = JSON.parse(text));
  } catch {
    error = undefined;
  }
  if (typeof error?.message !== 'string') return new Wrong(`${transport}: status ${status} without an error object: ${text}`);
  return new Refused(transport, status, error.code ?? '', error.message);
}
