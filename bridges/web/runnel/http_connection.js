// What the connections for SSE and polling share.
import { broken, parseRetryAfter, refusal } from './errors.js';

export class HttpConnection {
  constructor(view) {
    this.view = view;
  }

  async start(accept) {
    const { view } = this;
    const response = await this.#fetch('/v1/generations', {
      method: 'POST',
      headers: { accept, 'content-type': 'application/json', 'idempotency-key': view.idempotencyKey },
      body: JSON.stringify(view.request),
    });
    const id = response.headers.get('x-generation-id');
    if (id) view.learnId(id);
    return response;
  }

  get(path, headers) {
    return this.#fetch(`/v1/generations/${encodeURIComponent(this.view.id)}${path}`, { method: 'GET', headers });
  }

  async cancel(id) {
    const response = await this.#fetch(`/v1/generations/${encodeURIComponent(id)}/cancel`, {
      method: 'POST',
      headers: { accept: 'application/json' },
    });
    await response.body?.cancel();
  }

  async #fetch(path, init) {
    const { view } = this;
    const headers = { ...init.headers, ...view.headers };
    const token = await view.token();
    if (token) headers.authorization = `Bearer ${token}`;
    let response;
    try {
      response = await view.fetch(view.baseUrl + path, {
        ...init, headers, signal: view.signal, cache: 'no-store', credentials: view.credentials,
      });
    } catch (cause) {
      throw broken('network', `cannot reach ${view.baseUrl}`, { cause });
    }
    if (!response.ok) throw await this.#refused(response);
    return response;
  }

  async #refused(response) {
    const body = await response.json().catch(() => null);
    const should = response.headers.get('x-should-retry');
    return refusal(body?.error, response.status, {
      shouldRetry: should === 'true' ? true : should === 'false' ? false : undefined,
      retryAfterMs: parseRetryAfter(response.headers),
    });
  }

  expect(response, type) {
    const got = (response.headers.get('content-type') ?? '').split(';')[0].trim().toLowerCase();
    if (response.body && got === type) return;
    response.body?.cancel().catch(() => {});
    throw broken('bad_content_type', `expected ${type}, got ${got || 'no type'}`, { status: response.status });
  }

  async *chunks(response) {
    const reader = response.body.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read().catch((cause) => {
          throw broken('network', 'the connection broke', { cause });
        });
        if (done) return;
        this.view.received(value.length);
        yield value;
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  async json(response) {
    this.expect(response, 'application/json');
    const decoder = new TextDecoder();
    let text = '';
    for await (const chunk of this.chunks(response)) text += decoder.decode(chunk, { stream: true });
    return parseJson(text + decoder.decode());
  }
}

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw broken('bad_body', 'the response is not JSON', { cause });
  }
}
