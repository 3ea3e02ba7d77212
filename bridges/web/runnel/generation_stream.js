// One reader: connects, applies, reconnects, and settles once the digest agrees.
import { pause } from './clock.js';
import { broken, RunnelError } from './errors.js';
import { HttpConnection } from './http_connection.js';
import { Meter } from './meter.js';
import { checkTransport, CONNECTIONS, readOptions } from './options.js';
import { Transcript } from './transcript.js';
import { Watchdog } from './watchdog.js';
import { WebSocketConnection } from './websocket_connection.js';

// Waits made on purpose: they need no delay and count as no failure.
const ON_PURPOSE = new Set(['dropped', 'switched']);
// The server is well and says where to go on: no delay, unless it says so twice with nothing between.
const AT_ONCE = new Set(['goaway', 'already_ended']);

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
