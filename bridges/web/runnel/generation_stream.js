// One reader: connects, applies events, reconnects, and settles once the digest agrees.

import { Attempt } from './attempt.js';
import { pause } from './clock.js';
import { broken, GENERATION_LOST, lostIfSeen, RunnelError } from './errors.js';
import { EventFeed } from './event_feed.js';
import { HttpConnection } from './http_connection.js';
import { Meter } from './meter.js';
import { readOptions } from './options.js';
import { checkId, failureOf, makeResult } from './result.js';
import { Retry } from './retry.js';
import { Surroundings } from './surroundings.js';
import { Transcript } from './transcript.js';
import { TransportChoice } from './transport_choice.js';
import { checkTransport } from './transports.js';

const CANCEL_TRIES = 5;
// A connection that broke with one of these after heartbeats made progress: the model is slow, but the server works.
const LOST = /^(network|stream_cut|idle_timeout|ws_\d+)$/;

/** One reader of one generation. Made by stream() and attach(). */
export class GenerationStream {
  #options;
  #request;
  #id;
  #transcript;
  #meter;
  #surroundings;
  #retry;
  #transport;
  /** @type {import('../runnel.js').Status} */
  #status = 'connecting';
  /** @type {Attempt | null} */
  #attempt = null;
  #attempts = 0;
  #progress = null;
  #rereadLast = false;
  #cancelWanted = false;
  #ended = false;
  #seen;
  #model = null;
  #feed = new EventFeed();
  #startedCalls;
  #resultCalls;
  #onAbort;
  #signal;

  /**
   * The generation's id, once it is known: usually long before the first token.
   * @type {Promise<string>}
   */
  started;
  /**
   * The complete text, once it is verified.
   * @type {Promise<import('../runnel.js').Result>}
   */
  result;
  /**
   * Why the last connection broke, or null.
   * @type {RunnelError | null}
   */
  lastError = null;

  constructor(request, id, options) {
    this.#options = readOptions(options);
    checkTransport(this.#options.transport, this.#options);
    this.#request = request;
    this.#id = id;
    this.#transport = new TransportChoice(this.#options, (notice) => this.#notice(notice));
    this.#transcript = new Transcript(options);
    // A reader that is given a cursor knows that the generation exists.
    this.#seen = this.#transcript.last > 0;
    this.#meter = new Meter(this.#options.clock, this.#options.startedAt);
    this.started = new Promise((resolve, reject) => (this.#startedCalls = { resolve, reject }));
    this.result = new Promise((resolve, reject) => (this.#resultCalls = { resolve, reject }));
    // A caller that only iterates must not get an unhandled rejection as well.
    this.started.catch(() => {});
    this.result.catch(() => {});
    if (id) this.#startedCalls.resolve(id);
    this.#watchSignal(options.signal);
    this.#watchSurroundings();
    // Deferred, so that onStatus never runs before the caller has this object.
    Promise.resolve().then(() => this.#run());
  }

  /** @returns {string | undefined} */
  get id() {
    return this.#id;
  }

  /** @returns {string | null} */
  get model() {
    return this.#model;
  }

  /**
   * connecting, streaming, reconnecting, then one of verified, failed, closed.
   * @returns {import('../runnel.js').Status}
   */
  get status() {
    return this.#status;
  }

  /** @returns {import('../runnel.js').TransportName} */
  get transport() {
    return this.#transport.name;
  }

  /**
   * The progress that the last heartbeat reported; null before that, and after the first token.
   * @returns {import('../runnel.js').Progress | null}
   */
  get progress() {
    return this.#progress;
  }

  get stats() {
    return this.#meter.snapshot();
  }

  /** @returns {import('../runnel.js').GenerationStream['cursor']} for another reader: attach(cursor.id, cursor) */
  get cursor() {
    const { texts, details } = this.#transcript;
    const cursor = { id: this.#id, ...this.#position, texts };
    return details === undefined ? cursor : { ...cursor, parts: details };
  }

  text(index = 0) {
    return this.#transcript.text(index);
  }

  /**
   * The parts of the first choice: text, reasoning, tool calls and refusals.
   * @returns {import('../runnel.js').Part[]}
   */
  get parts() {
    return this.partsOf(0);
  }

  /** @returns {import('../runnel.js').Part[]} */
  partsOf(index = 0) {
    return this.#transcript.parts(index);
  }

  /** @returns {AsyncGenerator<import('../runnel.js').GenerationEvent, void, void>} */
  [Symbol.asyncIterator]() {
    return this.#feed.iterate();
  }

  /**
   * Asks the engine to stop. The text then ends, verified, with finish reason `cancelled`.
   * @returns {Promise<void>}
   */
  async cancel() {
    this.#cancelWanted = true;
    const id = await this.started;
    for (let tries = 0; !this.#ended; tries++) {
      if (this.#attempt?.cancel(id)) return;
      // The next connection sends it as soon as it is attached.
      if (!this.#options.baseUrl) return;
      const { signal } = new AbortController();
      try {
        return void await new HttpConnection({ ...this.#options, signal }).cancel(id);
      } catch (error) {
        if (!error.retryable || error.code === GENERATION_LOST || tries + 1 >= CANCEL_TRIES) throw error;
        await pause(this.#options.clock, this.#retry.delay(tries, error), signal);
      }
    }
  }

  /** Cuts the connection as a bad network would. The reader resumes over a new one. */
  drop() {
    this.#interrupt(broken('dropped', 'dropped on purpose'));
  }

  /** @param {import('../runnel.js').TransportName} name */
  switchTransport(name) {
    checkTransport(name, this.#options);
    this.#switch(name, false);
  }

  /** Stops reading. The generation continues as its detach policy says. */
  close() {
    this.#fail(new RunnelError('closed', 'closed by the caller'));
  }

  #watchSignal(signal) {
    this.#onAbort = () => this.#fail(new RunnelError('aborted', 'aborted by the caller', { cause: signal.reason }));
    if (signal?.aborted) return void Promise.resolve().then(this.#onAbort);
    this.#signal = signal;
    signal?.addEventListener('abort', this.#onAbort);
  }

  #watchSurroundings() {
    const { window, clock } = this.#options;
    const wake = () => {
      this.#attempt?.wake();
      this.#retry.wake();
    };
    this.#surroundings = new Surroundings(window, clock, {
      // Open connections may survive: a browser reports `offline` also when one of several networks is left.
      onOffline: () => this.#notice({ type: 'offline' }),
      onOnline: () => {
        this.#notice({ type: 'online' });
        wake();
      },
      onSleep: () => this.#attempt?.sleep(),
      onWake: wake,
      onStored: () => this.#attempt?.interrupt(broken('stored', 'the page entered the back/forward cache')),
      onRestored: wake,
    });
    this.#retry = new Retry(this.#options, this.#surroundings);
    this.#retry.onWait = (ms, error) => {
      this.#notice({ type: 'waiting', ms, error, offline: this.#surroundings.offline });
    };
  }

  #notice(notice) {
    if (!this.#ended) this.#options.onNotice(notice, this);
  }

  #interrupt(error) {
    this.#attempt?.interrupt(error);
    this.#retry.interrupt();
  }

  #switch(name, automatic) {
    if (this.#ended || !name || name === this.transport) return;
    this.#transport.set(name, automatic);
    this.#interrupt(broken('switched', `switched to ${name}`));
  }

  async #run() {
    while (!this.#ended) {
      const before = this.#transcript.last;
      const attempt = (this.#attempt = new Attempt(this.transport, this.#options, this.#reader()));
      const error = lostIfSeen(await attempt.read((event) => this.#apply(event)), this.#seen);
      this.#attempt = null;
      if (this.#ended) return;
      this.lastError = error;
      if (error.code === 'already_ended') this.#rereadLast = true;
      const progress = this.#transcript.last > before || (attempt.heartbeats > 0 && LOST.test(error.code));
      const final = this.#retry.note(error, progress);
      if (final) return this.#fail(final);
      this.#setStatus('reconnecting');
      this.#switch(this.#transport.judge(attempt, error), true);
      await this.#retry.wait(error);
      // The frame with the cancel may have been lost with its socket. A WebSocket repeats it when it attaches.
      if (this.#cancelWanted && this.transport !== 'websocket') this.cancel().catch(() => {});
      if (error.code === 'switched') this.#meter.switches++;
      else if (!this.#ended) this.#meter.reconnects++;
    }
  }

  /** This reader as a connection sees it. */
  #reader() {
    const stream = this;
    return {
      request: this.#request,
      fresh: this.#attempts++ === 0 && this.#id === undefined,
      get id() { return stream.#id; },
      get after() { return stream.#after; },
      get epoch() { return stream.#transcript.epoch; },
      get cancelWanted() { return stream.#cancelWanted; },
      learnId: (id) => this.#learnId(id),
      setRetryMs: (ms) => (this.#retry.retryMs = ms),
      onOpened: () => this.#onOpened(),
      onReceived: (bytes) => (this.#meter.bytesReceived += bytes),
      onProgress: (progress) => this.#setProgress(progress),
      onHeld: (heldMs) => this.#switch(this.#transport.held('bursts', heldMs), true),
    };
  }

  // If the log has ended at the cursor, its last event is read once more, because that holds the digest.
  get #after() {
    const { last } = this.#transcript;
    return this.#rereadLast ? Math.max(0, last - 1) : last;
  }

  // For a cursor. Before a takeover there is no epoch.
  get #position() {
    const { last, epoch } = this.#transcript;
    return epoch === 0 ? { after: last } : { after: last, epoch };
  }

  #onOpened() {
    this.#seen = true;
    this.#setStatus('streaming');
  }

  #learnId(id) {
    checkId(id, this.#id);
    // The server has named the generation of this reader.
    this.#seen = true;
    this.#id = id;
    this.#startedCalls.resolve(id);
  }

  #setProgress(progress) {
    if (this.#meter.started || JSON.stringify(progress) === JSON.stringify(this.#progress)) return;
    this.#progress = progress;
    this.#notice({ type: 'progress', ...progress });
  }

  /** Returns false once there is nothing more to read. */
  #apply(event) {
    if (event.gen !== undefined) this.#learnId(event.gen);
    const terminal = event.type === 'done' || event.type === 'failed';
    // A terminal event at the cursor is not a repeat: this reader would have ended when it applied the event.
    if (terminal && event.seq === this.#transcript.last) return this.#end(event);
    if (event.type === 'attached') return this.#attach(event);
    // An event of a kind that this version does not know counts only if it has a number in the log.
    if (event.seq === undefined && event.type !== 'gap') return true;
    const outcome = this.#transcript.apply(event);
    if (outcome === 'repeat') {
      this.#meter.repeatsDropped++;
      return true;
    }
    if (outcome === 'missing' || event.type === 'gap') this.#meter.gaps++;
    if (event.type === 'gap') this.#publish(event);
    if (outcome === 'missing') throw broken('gap', `events after ${this.#transcript.last} are missing`);
    if (terminal) return this.#end(event);
    if (event.type === 'started') this.#model = event.model ?? null;
    if (event.type === 'delta') {
      this.#meter.delta(event);
      this.#progress = null;
    }
    if (event.type !== 'gap') this.#publish(event);
    if (event.type === 'gap') this.#reportParts();
    if (this.#transcript.opened) this.#reportPart(this.#transcript.opened);
    return !this.#ended;
  }

  #attach({ parts }) {
    if (parts !== undefined) this.#transcript.attach(parts);
    return true;
  }

  #reportPart({ choice, index }) {
    const part = this.#transcript.parts(choice).find((each) => each.index === index);
    this.#options.onPart({ choice, ...part }, this);
  }

  #reportParts() {
    for (const choice of this.#transcript.choices) {
      for (const { index } of this.#transcript.parts(choice)) this.#reportPart({ choice, index });
    }
  }

  #publish(event) {
    this.#rereadLast = false;
    this.#feed.push(event);
  }

  #end(event) {
    const failure = failureOf(event, this.#transcript);
    // `done` is not published if the text differs from what was sent.
    if (!failure || event.type === 'failed') this.#publish(event);
    if (failure) {
      this.#fail(failure);
    } else {
      this.#transcript.settle(event);
      this.#settle('verified', null);
      const { id, model, stats } = this;
      this.#resultCalls.resolve(makeResult(event, { id, model, stats, transcript: this.#transcript }));
    }
    return false;
  }

  #fail(error) {
    if (this.#ended) return;
    error.generationId = this.#id;
    error.partial = { texts: this.#transcript.texts, ...this.#position };
    this.lastError = error;
    this.#transcript.settle();
    this.#settle(error.code === 'closed' || error.code === 'aborted' ? 'closed' : 'failed', error);
    this.#startedCalls.reject(error);
    this.#resultCalls.reject(error);
  }

  #settle(status, error) {
    this.#ended = true;
    this.#progress = null;
    this.#meter.end();
    this.#surroundings.stop();
    this.#signal?.removeEventListener('abort', this.#onAbort);
    this.#interrupt(error ?? broken('stream_cut', 'the text is complete'));
    this.#setStatus(status);
    this.#reportParts();
    this.#feed.end(error);
  }

  #setStatus(status) {
    const over = this.#ended && status !== 'verified' && status !== 'failed' && status !== 'closed';
    if (over || this.#status === status) return;
    this.#status = status;
    this.#options.onStatus(status, this);
  }
}
