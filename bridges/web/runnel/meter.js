// The statistics of one reader.

const MIN_RATE_SPAN_MS = 50;

/** Counts and times of one reader, in milliseconds of the given clock. */
export class Meter {
  #clock;
  #startedAt;
  /** @type {number | null} */
  #firstAt = null;
  #lastAt = 0;
  /** @type {number | null} */
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
    if (this.#firstAt !== null || (event.text || event.content || '') === '') return;
    this.#firstAt = this.#lastAt;
    this.#firstTokens = this.tokens;
  }

  get started() {
    return this.#firstAt !== null;
  }

  end() {
    this.#endedAt ??= this.#clock.now();
  }

  snapshot() {
    const span = this.#firstAt === null ? 0 : this.#lastAt - this.#firstAt;
    const { tokens, bytesReceived, reconnects, switches, repeatsDropped, gaps } = this;
    return {
      ttftMs: this.#firstAt === null ? null : this.#firstAt - this.#startedAt,
      // Tokens that arrived with the first text were generated before the span. A replay in one burst has no rate.
      tokensPerSecond: span >= MIN_RATE_SPAN_MS ? ((tokens - this.#firstTokens) * 1000) / span : null,
      durationMs: (this.#endedAt ?? this.#clock.now()) - this.#startedAt,
      tokens, bytesReceived, reconnects, switches, repeatsDropped, gaps,
    };
  }
}
