// The browser's end of Runnel: reads a generation over SSE, WebSocket or polling, and loses none of it.
//
//   const answer = stream({ model: 'm', messages: [{ role: 'user', content: 'Hello' }] });
//   for await (const event of answer) if (event.type === 'delta') show(event.text);
//   const { text, verified } = await answer.result;
//
// A generation is an append-only log of numbered events, and all that a reader holds is a cursor into it. So a broken
// connection, a switch of transport and a reload of the page are one operation: read the log after `seq`. `done`
// carries the length and the CRC-32 of each text; a result exists only once they agree with what was read.
//
// One ES module without dependencies, for browsers and for Node 20 (which needs `options.WebSocket` for WebSocket).

// ---------------------------------------------------------------------------------------------------------- errors

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

const broken = (code, message, more) => new RunnelError(code, message, { retryable: true, ...more });

// 500 is among them because a start carries an idempotency key and everything else only reads.
const RETRYABLE_STATUS = new Set([408, 425, 429, 500, 502, 503, 504]);

/** `error` is the error object of a response body or of a WebSocket `error` frame. */
function refusal(error, status, { shouldRetry, retryAfterMs } = {}) {
  const code = typeof error?.code === 'string' && error.code ? error.code : `http_${status}`;
  const message = typeof error?.message === 'string' ? error.message : `refused with status ${status}`;
  return new RunnelError(code, message, {
    status,
    retryable: shouldRetry ?? RETRYABLE_STATUS.has(status),
    retryAfterMs,
  });
}

function parseRetryAfter(headers) {
  const ms = Number.parseFloat(headers.get('retry-after-ms') ?? '');
  if (ms >= 0) return ms;
  const value = (headers.get('retry-after') ?? '').trim();
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}

// ---------------------------------------------------------------------------------------------------------- digest

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  return c >>> 0;
});

/** zlib's CRC-32 of bytes. Give the result of the bytes before to go on from there. */
export function crc32(bytes, before = 0) {
  let c = ~before;
  for (let i = 0; i < bytes.length; i++) c = CRC_TABLE[(c ^ bytes[i]) & 0xff] ^ (c >>> 8);
  return ~c >>> 0;
}

const utf8 = new TextEncoder();
const hex8 = (number) => number.toString(16).padStart(8, '0');

// ------------------------------------------------------------------------------------------------------------- SSE

// A line without end must not fill the memory. The largest honest one is a snapshot of a whole answer.
const MAX_LINE_CHARS = 16 * 1024 * 1024;

/** Incremental parser of text/event-stream, after the WHATWG algorithm. Chunks may be split anywhere. */
export class SseParser {
  // Strips one BOM and keeps a character that a chunk boundary has cut.
  #decoder = new TextDecoder('utf-8');
  #rest = '';
  #skipLf = false;
  #data = '';
  #type = '';
  #id = '';
  /** As of the last blank line. */
  lastEventId = '';
  /** The server's last `retry`, in milliseconds. */
  retryMs = undefined;

  /** Returns the messages that `bytes` completes. What is not ended by a blank line is never returned. */
  push(bytes) {
    const text = this.#decoder.decode(bytes, { stream: true });
    const messages = [];
    let start = 0;
    if (this.#skipLf && text.length > 0) {
      if (text[0] === '\n') start = 1;
      this.#skipLf = false;
    }
    const lineEnd = /[\r\n]/g;
    for (;;) {
      lineEnd.lastIndex = start;
      const end = lineEnd.exec(text)?.index;
      if (end === undefined) break;
      const line = this.#rest + text.slice(start, end);
      this.#rest = '';
      start = end + 1;
      if (text[end] === '\r') {
        if (start === text.length) this.#skipLf = true;
        else if (text[start] === '\n') start++;
      }
      this.#line(line, messages);
    }
    this.#rest += text.slice(start);
    if (this.#rest.length + this.#data.length > MAX_LINE_CHARS) throw broken('bad_event', 'event without end');
    return messages;
  }

  #line(line, messages) {
    if (line === '') return this.#dispatch(messages);
    const colon = line.indexOf(':');
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1);
    if (value[0] === ' ') value = value.slice(1);
    if (field === 'data') this.#data += `${value}\n`;
    else if (field === 'event') this.#type = value;
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    else if (field === 'retry' && /^[0-9]+$/.test(value)) this.retryMs = Number(value);
  }

  #dispatch(messages) {
    this.lastEventId = this.#id;
    if (this.#data !== '') {
      messages.push({ type: this.#type || 'message', data: this.#data.slice(0, -1), lastEventId: this.#id });
    }
    this.#data = '';
    this.#type = '';
  }
}

// ------------------------------------------------------------------------------------------------------ transcript

/** What a reader has applied so far: the cursor, the texts and their running digests. */
export class Transcript {
  #choices = new Map();
  // False if the reader began in the middle without the texts before: then the digest cannot be checked.
  #whole = true;
  last = 0;

  constructor({ after = 0, texts } = {}) {
    this.last = after;
    if (texts) texts.forEach((text, index) => this.#append(index, text));
    else this.#whole = after === 0;
  }

  get whole() {
    return this.#whole;
  }

  get texts() {
    return Array.from({ length: Math.max(0, ...[...this.#choices.keys()].map((i) => i + 1)) }, (_, i) => this.text(i));
  }

  text(index = 0) {
    return this.#choices.get(index)?.text ?? '';
  }

  /** 'applied'; 'repeat' for what was seen before; 'missing' if events between were lost. Throws on nonsense. */
  apply(event) {
    if (event.type === 'gap') return this.#replace(event);
    const first = event.first_seq || event.seq;
    const ordered = Number.isSafeInteger(first) && Number.isSafeInteger(event.seq) && first >= 1 && first <= event.seq;
    if (!ordered) throw broken('bad_event', `bad seq in ${event.type}`);
    if (event.seq <= this.last) return 'repeat';
    if (first > this.last + 1) return 'missing';
    // A server sends each reader whole events only, so half a repeat means that the cursors disagree.
    if (first <= this.last) throw broken('bad_event', `events ${first}..${event.seq} overlap cursor ${this.last}`);
    if (event.type === 'delta') this.#append(event.choice ?? 0, event.text);
    this.last = event.seq;
    return 'applied';
  }

  #append(index, text) {
    const sound = Number.isInteger(index) && index >= 0 && index < 1024 && typeof text === 'string';
    if (!sound) throw broken('bad_event', 'bad delta');
    const choice = this.#choices.get(index) ?? { text: '', bytes: 0, crc: 0 };
    const bytes = utf8.encode(text);
    choice.text += text;
    choice.bytes += bytes.length;
    choice.crc = crc32(bytes, choice.crc);
    this.#choices.set(index, choice);
  }

  // Without a snapshot nothing is known any more: the cursor goes to the beginning, and the log is read again.
  #replace(gap) {
    const seq = gap.snapshot?.seq ?? 0;
    if (!Number.isSafeInteger(seq) || seq < 0) throw broken('bad_event', 'bad snapshot');
    this.#choices.clear();
    for (const { index, text } of gap.snapshot?.choices ?? []) this.#append(index ?? 0, text);
    this.#whole = true;
    this.last = seq;
    return gap.snapshot ? 'applied' : 'missing';
  }

  /** Undefined if `done` agrees with what was read, else what does not. */
  disagreement(done) {
    if (done.events !== done.seq) return `${done.seq} events read, ${done.events} logged`;
    if (!Array.isArray(done.choices)) return 'no choices in done';
    const ends = new Map(done.choices.map((end) => [end.index ?? 0, end]));
    for (const index of this.#choices.keys()) if (!ends.has(index)) return `choice ${index} is unknown to done`;
    for (const [index, end] of ends) {
      const read = this.#choices.get(index) ?? { bytes: 0, crc: 0 };
      if (!this.#whole) {
        if (!(read.bytes <= end.text_bytes)) return `choice ${index}: ${read.bytes} bytes of ${end.text_bytes}`;
      } else if (read.bytes !== end.text_bytes) {
        return `choice ${index}: ${read.bytes} bytes read, ${end.text_bytes} sent`;
      } else if (hex8(read.crc) !== end.crc32) {
        return `choice ${index}: CRC-32 ${hex8(read.crc)} read, ${end.crc32} sent`;
      }
    }
    return undefined;
  }
}

const MIN_RATE_SPAN_MS = 50;

/** The numbers of one reader. Times are of the injected clock, in milliseconds. */
class Meter {
  #clock;
  #startedAt;
  #firstAt = null;
  #lastAt = null;
  #endedAt = null;
  #firstTokens = 0;
  tokens = 0;
  bytesReceived = 0;
  reconnects = 0;
  switches = 0;
  repeatsDropped = 0;
  gaps = 0;

  constructor(clock, startedAt) {
    this.#clock = clock;
    this.#startedAt = startedAt ?? clock.now();
  }

  delta(event) {
    this.#lastAt = this.#clock.now();
    this.tokens += event.tokens ?? 0;
    if (this.#firstAt !== null || event.text === '') return;
    this.#firstAt = this.#lastAt;
    this.#firstTokens = this.tokens;
  }

  end() {
    this.#endedAt ??= this.#clock.now();
  }

  snapshot() {
    const span = this.#firstAt === null ? 0 : this.#lastAt - this.#firstAt;
    const { tokens, bytesReceived, reconnects, switches, repeatsDropped, gaps } = this;
    return {
      ttftMs: this.#firstAt === null ? null : this.#firstAt - this.#startedAt,
      // What came with the first text was not produced in the span; and a replay in one burst has no rate.
      tokensPerSecond: span >= MIN_RATE_SPAN_MS ? ((tokens - this.#firstTokens) * 1000) / span : null,
      durationMs: (this.#endedAt ?? this.#clock.now()) - this.#startedAt,
      tokens, bytesReceived, reconnects, switches, repeatsDropped, gaps,
    };
  }
}

// ------------------------------------------------------------------------------------------------------------ time

const systemClock = {
  now: () => performance.now(),
  setTimer(callback, ms) {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
};

/** Resolves after `ms`, or as soon as `signal` is aborted. */
function pause(clock, ms, signal) {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const end = () => {
      cancelTimer();
      signal.removeEventListener('abort', end);
      resolve();
    };
    const cancelTimer = clock.setTimer(end, ms);
    signal.addEventListener('abort', end);
  });
}

/** Calls onQuiet at each third of `limitMs` without a touch, and onDead at its end. */
class Watchdog {
  #clock;
  #limitMs;
  #handlers;
  #touchedAt;
  #cancelTimer;

  constructor(clock, limitMs, handlers) {
    this.#clock = clock;
    this.#limitMs = limitMs;
    this.#handlers = handlers;
    this.touch();
    this.#arm();
  }

  // Only notes the time: a timer set and cleared for each token would cost more than the token.
  touch() {
    this.#touchedAt = this.#clock.now();
  }

  stop() {
    this.#cancelTimer();
  }

  #arm() {
    this.#cancelTimer = this.#clock.setTimer(() => {
      const quietMs = this.#clock.now() - this.#touchedAt;
      if (quietMs >= this.#limitMs) return this.#handlers.onDead();
      if (quietMs >= this.#limitMs / 3) this.#handlers.onQuiet();
      this.#arm();
    }, this.#limitMs / 3);
  }
}

// ------------------------------------------------------------------------------------------------------ transports
//
// A connection is one attempt to read: `read()` is an async generator of decoded events after the link's cursor. It
// ends when the peer ends it, and throws a RunnelError when it breaks. It knows nothing of repeats, digests and
// reconnecting, which are the same for all of them. The link is its view of the driver: `id` and `after` (the
// cursor), `request`, `signal`, and the calls opened(), received(bytes) and learnId(id).

function parseEvent(text) {
  let event;
  try {
    event = JSON.parse(text);
  } catch (cause) {
    throw broken('bad_event', 'an event is not JSON', { cause });
  }
  return checkEvent(event);
}

function checkEvent(event) {
  if (event?.error && event.type === undefined) throw refusal(event.error, event.error.status ?? 500);
  if (typeof event?.type !== 'string') throw broken('bad_event', 'an event without type');
  return event;
}

class HttpConnection {
  constructor(link) {
    this.link = link;
  }

  async start(accept) {
    const { link } = this;
    const response = await this.#fetch('/v1/generations', {
      method: 'POST',
      headers: { accept, 'content-type': 'application/json', 'idempotency-key': link.idempotencyKey },
      body: JSON.stringify(link.request),
    });
    const id = response.headers.get('x-generation-id');
    if (id) link.learnId(id);
    return response;
  }

  get(path, headers) {
    return this.#fetch(`/v1/generations/${encodeURIComponent(this.link.id)}${path}`, { method: 'GET', headers });
  }

  async cancel(id) {
    const response = await this.#fetch(`/v1/generations/${encodeURIComponent(id)}/cancel`, {
      method: 'POST',
      headers: { accept: 'application/json' },
    });
    await response.body?.cancel();
  }

  async #fetch(path, init) {
    const { link } = this;
    const headers = { ...init.headers, ...link.headers };
    const token = await link.token();
    if (token) headers.authorization = `Bearer ${token}`;
    let response;
    try {
      response = await link.fetch(link.baseUrl + path, {
        ...init, headers, signal: link.signal, cache: 'no-store', credentials: link.credentials,
      });
    } catch (cause) {
      throw broken('network', `cannot reach ${link.baseUrl}`, { cause });
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
    throw new RunnelError('bad_content_type', `expected ${type}, got ${got || 'no type'}`, { status: response.status });
  }

  async *chunks(response) {
    const reader = response.body.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read().catch((cause) => {
          throw broken('network', 'the connection broke', { cause });
        });
        if (done) return;
        this.link.received(value.length);
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

// The log has ended at our cursor. Unless a terminal event was applied, the driver has to look at the last one again.
const alreadyEnded = () => broken('already_ended', 'the generation ended at the cursor');

class SseConnection extends HttpConnection {
  async *read() {
    const { link } = this;
    const response = link.id ? await this.#resume() : await this.start('text/event-stream');
    if (response.status === 204) throw alreadyEnded();
    this.expect(response, 'text/event-stream');
    link.opened();
    const parser = new SseParser();
    for await (const chunk of this.chunks(response)) {
      for (const message of parser.push(chunk)) {
        if (parser.retryMs !== undefined) link.retryMs = parser.retryMs;
        yield parseEvent(message.data);
      }
    }
  }

  #resume() {
    const { id, after } = this.link;
    const headers = { accept: 'text/event-stream' };
    if (after > 0) headers['last-event-id'] = `${id}:${after}`;
    return this.get('/events', headers);
  }
}

class PollConnection extends HttpConnection {
  async *read() {
    const { link } = this;
    if (!link.id) link.learnId((await this.json(await this.start('application/json'))).id);
    for (;;) {
      const askedAt = link.clock.now();
      const { after } = link;
      const path = `?after=${after}&wait=${link.pollWaitSeconds}`;
      const state = await this.json(await this.get(path, { accept: 'application/json' }));
      if (!Array.isArray(state.events)) throw broken('bad_body', 'no events in the answer to a poll');
      link.opened();
      for (const event of state.events) yield checkEvent(event);
      if (link.after === after && (state.status === 'done' || state.status === 'failed')) throw alreadyEnded();
      // A server that does not hold an empty poll back must not be asked without end.
      const tookMs = link.clock.now() - askedAt;
      if (state.events.length === 0 && tookMs < link.pollMinMs) {
        await pause(link.clock, link.pollMinMs - tookMs, link.signal);
      }
    }
  }
}

/** What came over a socket and was not yet taken, then the error that ended it. */
class Inbox {
  #items = [];
  #error;
  #wake = () => {};

  push(item) {
    this.#items.push(item);
    this.#wake();
  }

  fail(error) {
    this.#error ??= error;
    this.#wake();
  }

  async next() {
    while (this.#items.length === 0) {
      if (this.#error) throw this.#error;
      await new Promise((resolve) => (this.#wake = resolve));
    }
    return this.#items.shift();
  }
}

const SUBPROTOCOL = 'runnel.v1';
const OPEN = Symbol('open');
// Unsupported data, policy, message too big, unauthenticated, forbidden: the next connection would meet the same.
const FATAL_CLOSE = new Set([1003, 1008, 1009, 4401, 4403]);

class WebSocketConnection {
  #socket;
  #inbox = new Inbox();
  #cancelTimer = () => {};

  constructor(link) {
    this.link = link;
  }

  async *read() {
    const { link } = this;
    const abort = () => this.#inbox.fail(link.signal.reason);
    link.signal.addEventListener('abort', abort);
    try {
      this.#open();
      await this.#inbox.next();
      await this.#attach();
      for (;;) {
        const event = this.#event(await this.#inbox.next());
        if (event) yield event;
      }
    } finally {
      link.signal.removeEventListener('abort', abort);
      this.#cancelTimer();
      this.#close();
    }
  }

  /** True if the socket took the command; if it breaks before the server has read it, the next one repeats it. */
  cancel(id) {
    return this.#send({ type: 'cancel', gen: id });
  }

  // Browsers cannot see the server's ping frames, so only this shows that the peer is alive while a model thinks.
  ping() {
    this.#send({ type: 'ping', t: Math.round(this.link.clock.now()) });
  }

  #open() {
    const { link } = this;
    let socket;
    try {
      socket = new link.WebSocket(link.wsUrl, [SUBPROTOCOL]);
    } catch (cause) {
      throw new RunnelError('bad_url', `cannot open ${link.wsUrl}`, { cause });
    }
    this.#socket = socket;
    socket.onopen = () => this.#inbox.push(OPEN);
    socket.onmessage = ({ data }) => this.#inbox.push(data);
    // A close with its code follows every error.
    socket.onerror = () => {};
    socket.onclose = ({ code, reason }) => {
      const message = `the socket was closed with ${code}${reason ? `: ${reason}` : ''}`;
      this.#inbox.fail(new RunnelError(`ws_${code}`, message, { retryable: !FATAL_CLOSE.has(code) }));
    };
  }

  #close() {
    const socket = this.#socket;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    try {
      socket.close(1000);
    } catch {
      // Closing what never opened: nothing to tell anyone.
    }
  }

  #send(frame) {
    if (this.#socket?.readyState !== 1) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  async #attach() {
    const { link } = this;
    if (this.#socket.protocol !== SUBPROTOCOL) {
      throw new RunnelError('bad_subprotocol', `the server did not agree to ${SUBPROTOCOL}`);
    }
    const token = await link.token();
    if (token) this.#send({ type: 'auth', token });
    if (link.id) {
      this.#send({ type: 'resume', req: 'c1', gen: link.id, after: link.after });
      if (link.cancelWanted) this.cancel(link.id);
    } else {
      this.#send({ type: 'generate', req: 'c1', body: link.request, idempotency_key: link.idempotencyKey });
    }
  }

  /** The event in a frame, or undefined for a frame of the connection's own. */
  #event(data) {
    const { link } = this;
    if (typeof data !== 'string') throw broken('bad_event', 'a binary frame');
    link.received(utf8.encode(data).length);
    const frame = parseEvent(data);
    if (frame.type === 'error') return this.#refused(frame);
    if (frame.type === 'goaway') return this.#leaveSoon(frame);
    if (frame.type === 'hello' || frame.type === 'pong') return undefined;
    if (typeof frame.gen !== 'string' || (link.id && frame.gen !== link.id)) return undefined;
    link.opened();
    link.learnId(frame.gen);
    return frame.type === 'attached' ? undefined : frame;
  }

  // One without `req` is about this stream after its first reply, about its cancel, or about the connection.
  #refused({ req, gen, error }) {
    const ours = (req === undefined || req === 'c1') && (gen === undefined || !this.link.id || gen === this.link.id);
    if (!ours) return undefined;
    throw refusal(error, error?.status ?? 400, { retryAfterMs: error?.retry_after_ms });
  }

  // At a random moment of the time given, so that the readers of a replica do not all come back at once.
  #leaveSoon({ reason, deadline_ms: deadlineMs = 0 }) {
    const { link } = this;
    const leave = () => this.#inbox.fail(broken('goaway', `the server goes away: ${reason}`));
    this.#cancelTimer();
    this.#cancelTimer = link.clock.setTimer(leave, link.random() * Math.min(deadlineMs, link.capMs));
    return undefined;
  }
}

const CONNECTIONS = { sse: SseConnection, websocket: WebSocketConnection, poll: PollConnection };

// ---------------------------------------------------------------------------------------------------------- driver

// Waits made on purpose: they need no delay and count as no failure.
const ON_PURPOSE = new Set(['dropped', 'switched']);
// The server is well and says where to go on: no delay, unless it says so twice with nothing between.
const AT_ONCE = new Set(['goaway', 'already_ended']);

// crypto.randomUUID exists in secure contexts only, and this must work on http://a-host-of-the-lan.
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function readOptions(options) {
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

function checkTransport(name, options) {
  const refuse = (message) => {
    throw new RunnelError('invalid_argument', message);
  };
  if (!Object.hasOwn(CONNECTIONS, name)) refuse(`unknown transport: ${name}`);
  if (name === 'websocket') {
    if (!options.wsUrl) refuse('wsUrl is missing');
    if (!options.WebSocket) refuse('there is no WebSocket here: give options.WebSocket');
  } else if (!options.baseUrl) refuse('baseUrl is missing');
}

/** One reader of one generation. Made by stream() and attach(). */
export class GenerationStream {
  #options;
  #request;
  #id;
  #transcript;
  #meter;
  #transport;
  #status = 'connecting';
  #attempt = new AbortController();
  #connection;
  #wait = null;
  #retryMs;
  #lookAgain = false;
  #cancelWanted = false;
  #ended = false;
  #error = null;
  #model = null;
  // The events applied, kept so that any number of iterators can each hold a cursor into them.
  #events = [];
  #news = () => {};
  #newsPromise;
  #startedCalls;
  #resultCalls;
  #onAbort;
  #signal;

  /** The generation's id, once it is known: long before the first token, usually. */
  started;
  /** The whole answer, once it is verified. */
  result;
  /** Why the last connection broke, if one did. */
  lastError = null;

  constructor(request, id, options) {
    this.#options = readOptions(options);
    checkTransport(this.#options.transport, this.#options);
    this.#request = request;
    this.#id = id;
    this.#transport = this.#options.transport;
    this.#transcript = new Transcript(options);
    this.#meter = new Meter(this.#options.clock, this.#options.startedAt);
    this.started = new Promise((resolve, reject) => (this.#startedCalls = { resolve, reject }));
    this.result = new Promise((resolve, reject) => (this.#resultCalls = { resolve, reject }));
    // Whoever iterates only must not be told twice, by an unhandled rejection.
    this.started.catch(() => {});
    this.result.catch(() => {});
    this.#newsPromise = new Promise((resolve) => (this.#news = resolve));
    if (id) this.#startedCalls.resolve(id);
    this.#watchSignal(options.signal);
    // Later, so that onStatus never runs before the caller has this object.
    Promise.resolve().then(() => this.#run());
  }

  get id() {
    return this.#id;
  }

  get model() {
    return this.#model;
  }

  /** connecting, streaming, reconnecting, then one of verified, failed, closed. */
  get status() {
    return this.#status;
  }

  get transport() {
    return this.#transport;
  }

  get stats() {
    return this.#meter.snapshot();
  }

  /** All that is needed to go on elsewhere: attach(cursor.id, cursor). */
  get cursor() {
    return { id: this.#id, after: this.#transcript.last, texts: this.#transcript.texts };
  }

  text(index = 0) {
    return this.#transcript.text(index);
  }

  async *[Symbol.asyncIterator]() {
    for (let next = 0; ; ) {
      while (next < this.#events.length) yield this.#events[next++];
      if (this.#ended) break;
      await this.#newsPromise;
    }
    if (this.#error) throw this.#error;
  }

  /** Asks the engine to stop. The answer then ends, verified, with finish reason `cancelled`. */
  async cancel() {
    this.#cancelWanted = true;
    const id = await this.started;
    for (let tries = 0; !this.#ended; tries++) {
      if (this.#connection instanceof WebSocketConnection && this.#connection.cancel(id)) return;
      // The next connection sends it as soon as it is attached.
      if (!this.#options.baseUrl) return;
      const { signal } = new AbortController();
      try {
        return await new HttpConnection({ ...this.#options, signal }).cancel(id);
      } catch (error) {
        if (!error.retryable || tries >= 4) throw error;
        await pause(this.#options.clock, this.#delay(tries, error), signal);
      }
    }
  }

  /** Cuts this connection as a bad network would; reading goes on over a new one. */
  drop() {
    this.#interrupt(broken('dropped', 'dropped on purpose'));
  }

  switchTransport(name) {
    checkTransport(name, this.#options);
    if (this.#ended || name === this.#transport) return;
    this.#transport = name;
    this.#interrupt(broken('switched', `switched to ${name}`));
  }

  /** Stops reading. The generation goes on as its detach policy says. */
  close() {
    this.#fail(new RunnelError('closed', 'closed by the caller'));
  }

  #watchSignal(signal) {
    this.#onAbort = () => this.#fail(new RunnelError('aborted', 'aborted by the caller', { cause: signal.reason }));
    if (signal?.aborted) return void Promise.resolve().then(this.#onAbort);
    this.#signal = signal;
    signal?.addEventListener('abort', this.#onAbort);
  }

  #interrupt(error) {
    this.#attempt.abort(error);
    this.#wait?.abort();
  }

  async #run() {
    for (let failures = 0; !this.#ended; ) {
      const before = this.#transcript.last;
      const error = await this.#read();
      if (this.#ended) return;
      this.lastError = error;
      if (error.code === 'already_ended') this.#lookAgain = true;
      if (!error.retryable) return this.#fail(error);
      const purpose = ON_PURPOSE.has(error.code);
      if (this.#transcript.last > before) failures = 0;
      if (!purpose && failures >= this.#options.maxRetries) {
        return this.#fail(broken('gave_up', `gave up after ${failures} retries: ${error.message}`, {
          cause: error, status: error.status,
        }));
      }
      this.#setStatus('reconnecting');
      if (!purpose && !(AT_ONCE.has(error.code) && failures === 0)) await this.#sleep(this.#delay(failures, error));
      if (!purpose) failures++;
      // The frame that asked for it may have died with its socket; a WebSocket asks again when it attaches.
      if (this.#cancelWanted && this.#transport !== 'websocket') this.cancel().catch(() => {});
      if (error.code === 'switched') this.#meter.switches++;
      else if (!this.#ended) this.#meter.reconnects++;
    }
  }

  // Full jitter. A server's `retry` takes the place of the first bound, its Retry-After is a lower one.
  #delay(failures, { retryAfterMs = 0 }) {
    const { baseMs, capMs, maxRetryAfterMs, random } = this.#options;
    const bound = Math.min(capMs, Math.max(baseMs, this.#retryMs ?? 0) * 2 ** Math.min(failures, 20));
    return Math.min(retryAfterMs, maxRetryAfterMs) + random() * bound;
  }

  // A drop, a switch, the end, and the network's return all end the wait.
  async #sleep(ms) {
    const wait = (this.#wait = new AbortController());
    const wake = () => wait.abort();
    globalThis.addEventListener?.('online', wake);
    await pause(this.#options.clock, ms, wait.signal);
    globalThis.removeEventListener?.('online', wake);
    this.#wait = null;
  }

  /** One connection, from its opening to its end. Returns why it ended; never throws. */
  async #read() {
    const attempt = (this.#attempt = new AbortController());
    const watchdog = new Watchdog(this.#options.clock, this.#options.idleTimeoutMs, {
      onQuiet: () => this.#connection.ping?.(),
      onDead: () => attempt.abort(broken('idle_timeout', 'nothing came, not even a heartbeat')),
    });
    this.#connection = new CONNECTIONS[this.#transport](this.#link(attempt.signal, watchdog));
    try {
      for await (const event of this.#connection.read()) {
        // What was under way when the connection was cut on purpose belongs to the next one.
        if (attempt.signal.aborted) break;
        this.#apply(event);
        if (this.#ended) break;
      }
      throw broken('stream_cut', 'the stream ended without a terminal event');
    } catch (error) {
      if (attempt.signal.aborted) return attempt.signal.reason;
      return error instanceof RunnelError ? error : new RunnelError('internal', String(error), { cause: error });
    } finally {
      this.#connection = undefined;
      watchdog.stop();
      attempt.abort(broken('stream_cut', 'the connection is over'));
    }
  }

  #link(signal, watchdog) {
    const driver = this;
    return {
      ...this.#options,
      signal,
      request: this.#request,
      get id() { return driver.#id; },
      get after() { return driver.#after; },
      get cancelWanted() { return driver.#cancelWanted; },
      set retryMs(ms) { driver.#retryMs = ms; },
      opened: () => this.#setStatus('streaming'),
      learnId: (id) => this.#learnId(id),
      received: (bytes) => {
        this.#meter.bytesReceived += bytes;
        watchdog.touch();
      },
    };
  }

  // A log that is said to have ended at our cursor is asked for its last event once more, as that holds the digest.
  get #after() {
    const { last } = this.#transcript;
    return this.#lookAgain ? Math.max(0, last - 1) : last;
  }

  #learnId(id) {
    if (typeof id !== 'string' || !/^gen_[A-Za-z0-9_-]{1,64}$/.test(id)) {
      throw broken('bad_event', 'bad generation id');
    }
    if (this.#id === undefined) {
      this.#id = id;
      this.#startedCalls.resolve(id);
    } else if (this.#id !== id) {
      throw broken('wrong_generation', `events of ${id} among those of ${this.#id}`);
    }
  }

  #apply(event) {
    if (event.gen !== undefined) this.#learnId(event.gen);
    const terminal = event.type === 'done' || event.type === 'failed';
    // A terminal event at the cursor is no repeat: had it been applied, this reader would have ended.
    if (terminal && event.seq === this.#transcript.last) return this.#end(event);
    // A kind of event that this version does not know counts only if it has its place in the log.
    if (event.seq === undefined && event.type !== 'gap') return;
    const fate = this.#transcript.apply(event);
    if (fate === 'repeat') {
      this.#meter.repeatsDropped++;
      return;
    }
    if (fate === 'missing' || event.type === 'gap') this.#meter.gaps++;
    if (event.type === 'gap') this.#publish(event);
    if (fate === 'missing') throw broken('gap', `events after ${this.#transcript.last} are missing`);
    if (terminal) return this.#end(event);
    if (event.type === 'started') this.#model = event.model ?? null;
    if (event.type === 'delta') this.#meter.delta(event);
    if (event.type !== 'gap') this.#publish(event);
  }

  #publish(event) {
    this.#lookAgain = false;
    this.#events.push(event);
    this.#wakeIterators();
  }

  #wakeIterators() {
    this.#news();
    this.#newsPromise = new Promise((resolve) => (this.#news = resolve));
  }

  #end(event) {
    if (event.type === 'failed') {
      const { code = 'engine_failed', message, retryable = false } = event.error ?? {};
      this.#publish(event);
      return this.#fail(new RunnelError(code, message, { retryable }));
    }
    const disagreement = this.#transcript.disagreement(event);
    if (disagreement) return this.#fail(new RunnelError('digest_mismatch', disagreement));
    this.#publish(event);
    this.#settle('verified');
    this.#resultCalls.resolve(this.#makeResult(event));
  }

  #makeResult(done) {
    const choices = done.choices
      .map((end) => ({ index: end.index ?? 0, text: this.text(end.index), finishReason: end.finish_reason }))
      .sort((a, b) => a.index - b.index);
    return {
      id: this.#id,
      model: this.#model,
      text: choices[0]?.text ?? '',
      texts: choices.map((choice) => choice.text),
      finishReasons: choices.map((choice) => choice.finishReason),
      choices,
      usage: done.usage ?? null,
      events: done.events,
      // False only for an attach in the middle that was given no texts.
      verified: this.#transcript.whole,
      stats: this.stats,
    };
  }

  #fail(error) {
    if (this.#ended) return;
    this.#error = error;
    error.generationId = this.#id;
    error.partial = { texts: this.#transcript.texts, after: this.#transcript.last };
    this.lastError = error;
    this.#settle(error.code === 'closed' || error.code === 'aborted' ? 'closed' : 'failed');
    this.#startedCalls.reject(error);
    this.#resultCalls.reject(error);
  }

  #settle(status) {
    this.#ended = true;
    this.#meter.end();
    this.#signal?.removeEventListener('abort', this.#onAbort);
    this.#interrupt(this.#error ?? broken('stream_cut', 'the answer is complete'));
    this.#setStatus(status);
    this.#wakeIterators();
  }

  #setStatus(status) {
    const over = this.#ended && status !== 'verified' && status !== 'failed' && status !== 'closed';
    if (over || this.#status === status) return;
    this.#status = status;
    this.#options.onStatus(status, this);
  }
}

// ----------------------------------------------------------------------------------------------------- entry points

/** Starts a generation and reads it. `request` is the body of POST /v1/generations, or a question as a string. */
export function stream(request, options = {}) {
  const body = typeof request === 'string' ? { messages: [{ role: 'user', content: request }] } : request;
  return new GenerationStream(body, undefined, { ...options, after: 0, texts: undefined });
}

/** Reads a generation that exists, after `options.after`; give `options.texts` up to there to have it verified. */
export function attach(generationId, options = {}) {
  if (typeof generationId !== 'string' || !generationId) {
    throw new RunnelError('invalid_argument', 'the id of a generation is missing');
  }
  return new GenerationStream(undefined, generationId, options);
}
