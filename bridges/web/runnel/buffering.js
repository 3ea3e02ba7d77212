// Notices that something between server and reader holds tokens back and hands them over in heaps.
//
// Each event says when it was appended (`ms`), and here it is seen when it arrives. Of a heap that was held back, the
// first event is as late as the heap is long, and the last one not late at all. That is what tells it from
//  - a model that makes many tokens at once: their `ms` are as close together as their arrivals;
//  - a slow network: all events are late, the last of a segment too;
//  - catching up after a resume: merged events, or a first heap after no silence;
//  - a page that slept: one heap, and disturb() says so.

// Heaps arrive within this; a steady stream of 8 tokens a second and more is one endless heap of no interest.
const HEAP_GAP_MS = 120;
const MIN_EVENTS = 4;
// Less is a radio that saves power or a busy page, and nobody sees it.
const MIN_HELD_MS = 400;
const HEAPS_IN_A_ROW = 3;
// An answer that came in fewer heaps has to have been held back for so long all in all.
const MIN_WHOLE_HELD_MS = 1500;
// How late the last event of such an answer may be: who buffers until the end hands over at the end.
const MAX_END_LATE_MS = 2000;

/** Watches the events of one connection. Make a new one for each. */
export class BufferingDetector {
  #clock;
  // When the request was sent whose answer these are; null if they are of a generation from before.
  #startedAt;
  #heap = null;
  #lastAt;
  // The first heap may be what a reader is owed from before.
  #ignoreHeap;
  #leastDelay = Infinity;
  #heaps = 0;
  #heldMs = 0;
  #others = 0;

  /** `fresh`: the connection starts the generation, so its `ms` count from no earlier than now. */
  constructor(clock, { fresh }) {
    this.#clock = clock;
    this.#lastAt = clock.now();
    this.#startedAt = fresh ? this.#lastAt : null;
    this.#ignoreHeap = !fresh;
  }

  /** The page sleeps or has slept: what comes next in a heap proves nothing. */
  disturb() {
    this.#startedAt = null;
    this.#restart();
  }

  /** Takes the next event. Returns how long the first of a heap was held back, once that is beyond doubt, else 0. */
  event({ type, seq, first_seq: firstSeq = seq, ms }) {
    const now = this.#clock.now();
    if (!(ms >= 0) || firstSeq < seq) {
      this.#restart();
      return 0;
    }
    if (this.#heap && now - this.#lastAt > HEAP_GAP_MS) this.#close();
    this.#heap ??= { silentMs: now - this.#lastAt, firstAt: now, firstMs: ms, events: 0 };
    this.#heap.events++;
    Object.assign(this.#heap, { lastAt: now, lastMs: ms });
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
    } else if (this.#wasHeld(heap)) {
      this.#heaps++;
      this.#heldMs += heap.lastMs - heap.firstMs;
    } else {
      this.#heaps = this.#heldMs = 0;
      this.#others++;
    }
  }

  #wasHeld({ silentMs, firstAt, lastAt, firstMs, lastMs, events }) {
    const heldMs = lastMs - firstMs;
    return events >= MIN_EVENTS && heldMs >= MIN_HELD_MS && lastAt - firstAt <= heldMs / 4 &&
      // It took the heap as long to grow as nothing came.
      silentMs >= 0.6 * heldMs && silentMs <= 1.6 * heldMs + MIN_HELD_MS &&
      lastAt - lastMs <= this.#leastDelay + 0.3 * heldMs + 50;
  }

  // Short answers fit into a heap or two. Then only that nothing of it ever came in time is a proof.
  #atEnd(delay) {
    const last = this.#heap;
    if (this.#startedAt === null || this.#others > 0 || delay - this.#startedAt > MAX_END_LATE_MS) return 0;
    const heldMs = this.#heldMs + (this.#wasHeld(last) ? last.lastMs - last.firstMs : 0);
    return heldMs >= MIN_WHOLE_HELD_MS ? heldMs / (this.#heaps + 1) : 0;
  }
}
