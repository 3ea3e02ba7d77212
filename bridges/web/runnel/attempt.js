// One connection from opening to end, with its watchdog and its buffering detector.
//
// A connection is an object whose read() is an async generator of the decoded events after the view's cursor. read()
// returns when the peer ends the connection, and throws a RunnelError when it breaks. Repeats, digests and reconnecting
// are the same for all transports, so a connection knows nothing of them.

import { BufferingDetector } from './buffering.js';
import { broken, RunnelError } from './errors.js';
import { ReaderView } from './reader_view.js';
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
  /** @type {RunnelError | null} */
  #goaway = null;
  #bytes = 0;
  /** The server has accepted the request. */
  opened = false;
  /** Number of heartbeats: signs that the server is there and has nothing new. */
  heartbeats = 0;

  /**
   * `reader` must outlive this: id, after, epoch, request, fresh, cancelWanted, learnId(id), setRetryMs(ms), onOpened(),
   * onReceived(bytes), onProgress(progress), onHeld(heldMs).
   */
  constructor(transport, options, reader) {
    this.#options = options;
    this.#reader = reader;
    this.#watchdog = new Watchdog(options.clock, options.idleTimeoutMs, {
      onQuiet: () => this.#connection?.ping?.(),
      onLate: () => this.#detector.disturb(),
      onDead: () => this.interrupt(broken('idle_timeout', 'no byte arrived in time, not even a heartbeat')),
    });
    this.#detector = new BufferingDetector(options.clock, { fresh: reader.fresh });
    this.#connection = new CONNECTIONS[transport](new ReaderView(options, reader, this, this.#controller.signal));
  }

  /** The connection was opened, and then no byte arrived, as through a proxy that waits for the end. */
  get silent() {
    return this.opened && this.#bytes === 0;
  }

  /** Passes each event to `apply` until that returns false. Returns why the connection ended; never throws. */
  async read(apply) {
    const { signal } = this.#controller;
    try {
      for await (const event of this.#connection.read()) {
        // After a cut on purpose, events that were under way belong to the next connection.
        if (signal.aborted) break;
        const heldMs = this.#connection.batches ? 0 : this.#detector.event(event);
        if (heldMs > 0) this.#reader.onHeld(heldMs);
        // onHeld may have left this connection; a final event is applied all the same.
        if (!apply(event) || signal.aborted) break;
      }
      throw broken('stream_cut', 'the stream ended without a terminal event');
    } catch (error) {
      if (signal.aborted) return signal.reason;
      // The server closed before this reader left, after it had announced that.
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

  /** True if the cancel was sent over this connection. */
  cancel(id) {
    return this.#connection.sendCancel?.(id) ?? false;
  }

  /** The page may not run for a while. */
  sleep() {
    this.#detector.disturb();
  }

  /** The page runs again, or the network has changed: the connection must show activity. */
  wake() {
    this.#detector.disturb();
    if (!this.#controller.signal.aborted) this.#watchdog.probe();
  }

  noteOpened() {
    this.opened = true;
    this.#reader.onOpened();
  }

  noteReceived(bytes) {
    this.#bytes += bytes;
    this.#watchdog.touch();
    this.#reader.onReceived(bytes);
  }

  /** `progress` is null if the heartbeat carried none. */
  noteHeartbeat(progress) {
    this.heartbeats++;
    if (progress) this.#reader.onProgress(progress);
  }

  /** Leaves at a random moment before the deadline, so that the readers of a replica do not all reconnect together. */
  leaveSoon({ reason, deadline_ms: deadlineMs }) {
    const { clock, random, capMs } = this.#options;
    this.#goaway = broken('goaway', `the server is shutting down: ${reason}`);
    const leave = () => this.interrupt(this.#goaway);
    this.#cancelMove();
    this.#cancelMove = clock.setTimer(leave, random() * Math.min(deadlineMs >= 0 ? deadlineMs : 0, capMs));
  }
}
