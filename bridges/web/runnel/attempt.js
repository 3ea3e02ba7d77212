// One connection, from its opening to its end, with what watches over it.
//
// A connection is an object whose read() is an async generator of decoded events after the link's cursor. It ends when
// the peer ends it, and throws a RunnelError when it breaks. It knows nothing of repeats, digests and reconnecting,
// which are the same for all transports. The link is its view of the reader: the options; `id`, `after` (the cursor),
// `request`, `cancelWanted` and `signal`; and the calls opened(), received(bytes), learnId(id), heartbeat(state) and
// leaveSoon(goaway).

import { BufferingDetector } from './buffering.js';
import { broken, RunnelError } from './errors.js';
import { readProgress } from './events.js';
import { CONNECTIONS } from './transports.js';
import { Watchdog } from './watchdog.js';

export class Attempt {
  #options;
  #reader;
  #controller = new AbortController();
  #connection;
  #watchdog;
  #detector;
  #cancelMove = () => {};
  #goaway = null;
  #bytes = 0;
  /** The server has taken the request. */
  opened = false;
  /** Heartbeats seen: the server is there and says that there is nothing new. */
  heartbeats = 0;

  /**
   * `reader` must outlive this: id, after, request, cancelWanted, learnId(id), setRetryMs(ms), onOpened(),
   * onReceived(bytes), onProgress(progress), onHeld(heldMs).
   */
  constructor(transport, options, reader) {
    this.#options = options;
    this.#reader = reader;
    this.#watchdog = new Watchdog(options.clock, options.idleTimeoutMs, {
      onQuiet: () => this.#connection?.ping?.(),
      onLate: () => this.#detector.disturb(),
      onDead: () => this.interrupt(broken('idle_timeout', 'nothing came, not even a heartbeat')),
    });
    this.#detector = new BufferingDetector(options.clock, { fresh: reader.fresh });
    this.#connection = new CONNECTIONS[transport](this.#link());
  }

  /** It was opened, and then nothing came, as through a proxy that waits for the end. */
  get silent() {
    return this.opened && this.#bytes === 0;
  }

  /** Gives each event to `apply` until that returns false. Returns why the connection ended; never throws. */
  async read(apply) {
    const { signal } = this.#controller;
    try {
      for await (const event of this.#connection.read()) {
        // What was under way when the connection was cut on purpose belongs to the next one.
        if (signal.aborted) break;
        const heldMs = this.#connection.batches ? 0 : this.#detector.event(event);
        if (heldMs > 0) this.#reader.onHeld(heldMs);
        // An answer that has ended is taken, though what it came over was just left.
        if (!apply(event) || signal.aborted) break;
      }
      throw broken('stream_cut', 'the stream ended without a terminal event');
    } catch (error) {
      if (signal.aborted) return signal.reason;
      // It went before we did, but said so.
      if (this.#goaway && error.retryable) return this.#goaway;
      return error instanceof RunnelError ? error : new RunnelError('internal', String(error), { cause: error });
    } finally {
      this.#watchdog.stop();
      this.#cancelMove();
      this.interrupt(broken('stream_cut', 'the connection is over'));
    }
  }

  interrupt(error) {
    this.#controller.abort(error);
  }

  /** True if the cancel went out over this connection. */
  cancel(id) {
    return this.#connection.sendCancel?.(id) ?? false;
  }

  /** The page may not run for a while. */
  sleep() {
    this.#detector.disturb();
  }

  /** The page runs again, or the network is another: the connection has to prove that it lives. */
  wake() {
    this.#detector.disturb();
    if (!this.#controller.signal.aborted) this.#watchdog.probe();
  }

  #link() {
    const reader = this.#reader;
    return {
      ...this.#options,
      signal: this.#controller.signal,
      request: reader.request,
      get id() { return reader.id; },
      get after() { return reader.after; },
      get cancelWanted() { return reader.cancelWanted; },
      set retryMs(ms) { reader.setRetryMs(ms); },
      learnId: (id) => reader.learnId(id),
      opened: () => {
        this.opened = true;
        reader.onOpened();
      },
      received: (bytes) => {
        this.#bytes += bytes;
        this.#watchdog.touch();
        reader.onReceived(bytes);
      },
      heartbeat: (state) => {
        this.heartbeats++;
        const progress = readProgress(state);
        if (progress) reader.onProgress(progress);
      },
      leaveSoon: (goaway) => this.#leaveSoon(goaway),
    };
  }

  // At a random moment of the time given, so that the readers of a replica do not all come back at once.
  #leaveSoon({ reason, deadline_ms: deadlineMs }) {
    const { clock, random, capMs } = this.#options;
    this.#goaway = broken('goaway', `the server goes away: ${reason}`);
    const leave = () => this.interrupt(this.#goaway);
    this.#cancelMove();
    this.#cancelMove = clock.setTimer(leave, random() * Math.min(deadlineMs >= 0 ? deadlineMs : 0, capMs));
  }
}
