// What one connection sees of the reader that it works for.

import { readProgress } from './events.js';

/**
 * The options of the reader, the cursor to read after, and the calls by which a connection reports. Made by an Attempt
 * for its one connection.
 */
export class ReaderView {
  #reader;
  #attempt;

  constructor(options, reader, attempt, signal) {
    Object.assign(this, options);
    this.#reader = reader;
    this.#attempt = attempt;
    /** Aborted when the connection must end. */
    this.signal = signal;
    /** Body of the request that starts the generation; undefined if the generation exists. */
    this.request = reader.request;
  }

  /** The generation's id, or undefined before it is known. */
  get id() {
    return this.#reader.id;
  }

  /** seq of the last event applied. */
  get after() {
    return this.#reader.after;
  }

  /** Epoch of that event; 0: none, which is never sent, because servers without takeovers do not know it. */
  get epoch() {
    return this.#reader.epoch;
  }

  /** The cursor as text: `17`, or `17.65537` after a takeover. */
  get position() {
    return this.epoch === 0 ? `${this.after}` : `${this.after}.${this.epoch}`;
  }

  get cancelWanted() {
    return this.#reader.cancelWanted;
  }

  /** Takes the `retry` field of the server. */
  set retryMs(ms) {
    this.#reader.setRetryMs(ms);
  }

  /** Throws if `id` is malformed or belongs to another generation. */
  learnId(id) {
    this.#reader.learnId(id);
  }

  /** The server has accepted the request. */
  opened() {
    this.#attempt.noteOpened();
  }

  /** Bytes of a body or a frame have arrived. */
  received(bytes) {
    this.#attempt.noteReceived(bytes);
  }

  /** A heartbeat with its state, which may be empty. */
  heartbeat(state) {
    this.#attempt.noteHeartbeat(readProgress(state));
  }

  /** The server asked its readers to move, within a deadline. */
  leaveSoon(goaway) {
    this.#attempt.leaveSoon(goaway);
  }
}
