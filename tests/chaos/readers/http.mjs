// One HTTP request, on a separate connection unless an agent is given. Every wait has a limit.
import http from 'node:http';
import https from 'node:https';
import { Break } from '../faults.mjs';

const MAX_BODY = 8 << 20;

function broken(error) {
  // Node has one code for a reset and for an end that comes too early, before or in the response.
  const kind = error.code === 'ECONNRESET' ? error.message : error.code;
  return error instanceof Break ? error : new Break(kind ?? error.message, { cause: error });
}

/** Resolves with the response; its body is not read yet. */
export function request(url, { method = 'GET', headers = {}, body, idleMs, agent = false, signal } = {}) {
  return new Promise((resolve, reject) => {
    // The tests make their certificates.
    const { request: send } = url.startsWith('https:') ? https : http;
    const sent = send(url, { method, headers, agent, signal, rejectUnauthorized: false });
    // The socket's timer, which restarts with every byte.
    sent.setTimeout(idleMs, () => sent.destroy(new Break('silence', { silent: true })));
    sent.on('response', resolve);
    sent.on('error', (error) => reject(broken(error)));
    sent.end(body);
  });
}

/** The chunks of a body; ends only if the body is complete. */
export async function* chunks(response) {
  try {
    for await (const chunk of response) yield chunk;
  } catch (error) {
    throw broken(error);
  }
}

export async function bodyText(response) {
  const parts = [];
  let length = 0;
  for await (const chunk of chunks(response)) {
    length += chunk.length;
    if (length > MAX_BODY) throw new Break('a body without an end');
    parts.push(chunk);
  }
  return Buffer.concat(parts).toString();
}
