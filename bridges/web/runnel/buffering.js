// Detects an intermediary between server and reader that holds tokens back and forwards them in heaps.
//
// Each event carries the time of its append (`ms`), and the detector knows the time of its arrival. In a heap that was
// held back, the first event is as late as the heap is long, and the last event is not late. This differs from
//  - a model that generates many tokens together: their `ms` are as close as their arrivals;
//  - a slow network: all events are late, including the last one of a segment;
//  - catching up after a resume: events are merged, or the first heap follows no silence;
//  - a page that slept: there is one heap, and disturb() reports the sleep.

// Events of one heap follow each other within this time. A steady stream of 8 tokens/s or more is one endless heap,
// which is ignored.
const HEAP_GAP_MS = 120;
const MIN_EVENTS = 4;
// Shorter delays are due to a radio that saves power or to a busy page, and are not noticeable.
const MIN_HELD_MS = 400;
const HEAPS_IN_A_ROW = 3;
// A response that arrived in fewer heaps must have been held back for this long in total.
const MIN_WHOLE_HELD_MS = 1500;
// How late the last event of such a response may be: a proxy that buffers until the end forwards at the end.
const MAX_END_LATE_MS = 2000;

/**
 * @typedef {object} Heap
 * @property {number} silentMs time without an event before it
 * @property {number} events
 * @property {number} firstAt arrival of its first event
 * @property {number} firstMs `ms` of its first event
 * @property {number} lastAt
 * @property {number} lastMs
 */

/** Watches the events of one connection. Make a new one for each. */
export class BufferingDetector {
  #clock;
  // When the request that started the generation was sent; null if the generation existed before.
  #startedAt;
  /**
   * The heap that is growing.
   * @type {Heap | null}
   */
  #heap = null;
  #lastAt;
  // The first heap may be a replay.
  #ignoreHeap;
  #leastDelay = Infinity;
  #heaps = 0;
  #heldMs = 0;
  #others = 0;

  /** `fresh` says that the connection starts the generation, so that its `ms` count from now or later. */
  constructor(clock, { fresh }) {
    this.#clock = clock;
    this.#lastAt = clock.now();
    this.#startedAt = fresh ? this.#lastAt : null;
    this.#ignoreHeap = !fresh;
  }

  /** The page sleeps or has slept: the next heap does not prove anything. */
  disturb() {
    this.#startedAt = null;
    this.#restart();
  }

  /** Takes the next event. Returns how long the first event of a heap was held back once that is certain, else 0. */
  event({ type, seq, first_seq: firstSeq = seq, ms }) {
    const now = this.#clock.now();
    if (!(ms >= 0) || firstSeq < seq) {
      this.#restart();
      return 0;
    }
    if (this.#heap && now - this.#lastAt > HEAP_GAP_MS) this.#close();
    this.#heap ??= { silentMs: now - this.#lastAt, events: 0, firstAt: now, firstMs: ms, lastAt: now, lastMs: ms };
    this.#heap.events++;
    this.#heap.lastAt = now;
    this.#heap.lastMs = ms;
    this.#lastAt = now;
    this.#leastDelay = Math.min(this.#leastDelay, now - ms);
    if (this.#heaps >= HEAPS_IN_A_ROW) return this.#heldMs / this.#heaps;
    return type === 'done' || type === 'failed' ? this.#atEnd(now - ms) : 0;
  }

  #restart() {
    this.#heap = null;
    this.#lastAt = this.#clock.now();
    this.#ignoreHeap = true;
    this.#heaps = this.#heldMs = 0;
    this.#others++;
  }

  #close() {
    const heap = this.#heap;
    this.#heap = null;
    if (this.#ignoreHeap) {
      this.#ignoreHeap = false;
    } else if (heap && this.#wasHeld(heap)) {
      this.#heaps++;
      this.#heldMs += heap.lastMs - heap.firstMs;
    } else {
      this.#heaps = this.#heldMs = 0;
      this.#others++;
    }
  }

  /** @param {Heap} heap */
  #wasHeld(heap) {
    const { silentMs, firstAt, lastAt, firstMs, lastMs, events } = heap;
    const heldMs = lastMs - firstMs;
    return events >= MIN_EVENTS && heldMs >= MIN_HELD_MS && lastAt - firstAt <= heldMs / 4 &&
      // The heap grew for as long as nothing arrived.
      silentMs >= 0.6 * heldMs && silentMs <= 1.6 * heldMs + MIN_HELD_MS &&
      lastAt - lastMs <= this.#leastDelay + 0.3 * heldMs + 50;
  }

  // Short responses fit into one or two heaps. Only if no event at all arrived in time, they were held back.
  #atEnd(delay) {
    const last = this.#heap;
    if (this.#startedAt === null || this.#others > 0 || delay - this.#startedAt > MAX_END_LATE_MS) return 0;
    const heldMs = this.#heldMs + (last && this.#wasHeld(last) ? last.lastMs - last.firstMs : 0);
    return heldMs >= MIN_WHOLE_HELD_MS ? heldMs / (this.#heaps + 1) : 0;
  }
}
