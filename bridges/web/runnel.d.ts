// Types of runnel.js. The events are the objects of the wire, as they are.

export type TransportName = 'sse' | 'websocket' | 'poll';
export type FinishReason = 'stop' | 'length' | 'cancelled' | 'content_filter';

export interface ChatMessage {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

/** Body of POST /v1/generations. Exactly one of messages and prompt. */
export interface GenerationRequest {
  model?: string;
  messages?: ChatMessage[];
  prompt?: string;
  max_tokens?: number;
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  seed?: number;
  stop?: string | string[];
  n?: number;
  presence_penalty?: number;
  frequency_penalty?: number;
  /** What becomes of the generation with no reader attached; null: it goes on without limit. */
  detach?: { cancel_after_ms: number | null };
  metadata?: Record<string, string>;
}

interface LogEvent {
  gen: string;
  seq: number;
  /** Milliseconds from the generation's created_at to the append of this event. */
  ms?: number;
}

export interface StartedEvent extends LogEvent {
  type: 'started';
  model: string;
  created_at: string;
  prompt_tokens?: number;
}

export interface DeltaEvent extends LogEvent {
  type: 'delta';
  choice: number;
  text: string;
  tokens: number;
  /** Present if the event stands for several: it covers first_seq..seq. */
  first_seq?: number;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

export interface DoneEvent extends LogEvent {
  type: 'done';
  final: true;
  events: number;
  choices: { index: number; finish_reason: FinishReason; text_bytes: number; crc32: string }[];
  usage: Usage;
}

export interface FailedEvent extends LogEvent {
  type: 'failed';
  final: true;
  error: { code: string; message: string; retryable: boolean };
}

/** The cursor was beyond the end of the log: replace every text by the snapshot's, or by nothing if it is null. */
export interface GapEvent extends LogEvent {
  type: 'gap';
  requested_after: number;
  first_available: number;
  reason: string;
  snapshot: { seq: number; choices: { index: number; text: string }[] } | null;
}

/** Switch on `type` and ignore the kinds that you do not know: there may be more in time. */
export type GenerationEvent = StartedEvent | DeltaEvent | DoneEvent | FailedEvent | GapEvent;

export interface Stats {
  /** From the start, or from options.startedAt, to the first text; null before it. */
  ttftMs: number | null;
  /** After the first text; null before there is a rate to speak of. */
  tokensPerSecond: number | null;
  durationMs: number;
  tokens: number;
  /** Of bodies and frames, without headers. */
  bytesReceived: number;
  reconnects: number;
  switches: number;
  repeatsDropped: number;
  gaps: number;
}

export interface Result {
  id: string;
  model: string | null;
  /** Of the first choice. */
  text: string;
  texts: string[];
  finishReasons: FinishReason[];
  choices: { index: number; text: string; finishReason: FinishReason }[];
  usage: Usage | null;
  /** Number of events in the log. */
  events: number;
  /** True: count, lengths and checksums agree. False only for an attach with `after` and without `texts`. */
  verified: boolean;
  stats: Stats;
}

/** connecting, streaming and reconnecting in any order, then one of the last three. */
export type Status = 'connecting' | 'streaming' | 'reconnecting' | 'verified' | 'failed' | 'closed';

/** What a generation does before its first token. More stages may come. */
export interface Progress {
  stage: 'queued' | 'prefill' | 'decoding' | (string & {});
  /** From 1; null if it is not known. */
  queuePosition: number | null;
  /** Of the prompt that is read, 0 to 1; null if it is not known. */
  prefillShare: number | null;
}

/**
 * What is no event of the log, and so not in the iterator, but worth telling a person. Switch on `type` and ignore the
 * kinds that you do not know.
 */
export type Notice =
  /** A heartbeat said something new. */
  | ({ type: 'progress' } & Progress)
  /**
   * Something on the way holds tokens back and hands them over in bursts, `heldMs` long if that is known, though they
   * were made evenly; or ('silence') lets nothing through at all. switchTransport(offer) goes on over one that is not
   * held back; null if there is none. At most once for each transport.
   */
  | { type: 'buffered'; transport: TransportName; offer: TransportName | null; cause: 'bursts' | 'silence'; heldMs: number | null }
  /** The next try is in `ms`, or earlier if the network or the page comes back. */
  | { type: 'waiting'; ms: number; error: RunnelError; offline: boolean }
  /** As the browser says. What is open is read on; what breaks is not tried again until `online`, or for 30 s. */
  | { type: 'offline' }
  | { type: 'online' };

export interface Clock {
  /** Monotonic milliseconds. */
  now(): number;
  /** Milliseconds that go on while the machine sleeps; now() by default. */
  wall?(): number;
  /** Returns what cancels it. */
  setTimer(callback: () => void, ms: number): () => void;
}

export interface StreamOptions {
  /** 'sse' by default. */
  transport?: TransportName;
  /** Address of the SSE bridge, which serves polling too. The page's own origin by default. */
  baseUrl?: string;
  /** Another name of baseUrl. */
  sseUrl?: string;
  /** Whole address of the WebSocket endpoint. baseUrl's host with /v1/ws by default. */
  wsUrl?: string;
  /** Aborting stops the reading, as close() does. */
  signal?: AbortSignal;
  /** Sent as a bearer token over HTTP and in the first frame of a WebSocket. Asked for at each connection. */
  token?: string | (() => string | Promise<string>);
  headers?: Record<string, string>;
  credentials?: RequestCredentials;
  /** Random by default. Starts with the same key and the same request are one generation. */
  idempotencyKey?: string;
  /** Tries without progress before giving up; 20 by default. */
  maxRetries?: number;
  /** 250 by default; the wait before try n is drawn from 0 to base * 2^n. */
  backoffBaseMs?: number;
  /** 5000 by default. */
  backoffCapMs?: number;
  /** The most that a Retry-After, of a 429 or 503, is believed; 60 s by default. */
  maxRetryAfterMs?: number;
  /** With no byte for so long, heartbeats included, the connection is given up; 35 s, two heartbeats, by default. */
  idleTimeoutMs?: number;
  /** How long the server may hold a poll; 20 by default. */
  pollWaitSeconds?: number;
  /** The least time between empty polls; 250 by default. */
  pollMinMs?: number;
  /** performance.now() of what stats.ttftMs counts from. */
  startedAt?: number;
  onStatus?(status: Status, stream: GenerationStream): void;
  onNotice?(notice: Notice, stream: GenerationStream): void;
  /** 'notify', the default, gives the notice only; 'switch' takes the transport that it offers. */
  onBuffered?: 'notify' | 'switch';
  /** For tests, as are the next two. Whose online, visibility and page lifecycle events are heeded. */
  window?: unknown;
  clock?: Clock;
  random?: () => number;
  fetch?: typeof fetch;
  WebSocket?: unknown;
}

export interface AttachOptions extends StreamOptions {
  /** seq of the last event that was applied; 0, the default, reads from the beginning. */
  after?: number;
  /** The texts up to there, without which the answer cannot be verified. */
  texts?: string[];
}

export class GenerationStream implements AsyncIterable<GenerationEvent> {
  private constructor();
  readonly id: string | undefined;
  readonly model: string | null;
  readonly status: Status;
  readonly transport: TransportName;
  /** The last that a heartbeat said; null before that, and from the first token on. */
  readonly progress: Progress | null;
  readonly stats: Stats;
  /** All that is needed to go on elsewhere: attach(cursor.id, cursor). */
  readonly cursor: { id: string | undefined; after: number; texts: string[] };
  /** Why the last connection broke, or the answer failed. */
  readonly lastError: RunnelError | null;
  /** The id, once it is known. */
  readonly started: Promise<string>;
  /** The whole answer, once it is verified; rejected with a RunnelError otherwise. */
  readonly result: Promise<Result>;
  /** The text so far. */
  text(choice?: number): string;
  /** Asks the engine to stop. The answer then ends, verified, with finish reason `cancelled`. */
  cancel(): Promise<void>;
  /** Cuts this connection as a bad network would; reading goes on over a new one. */
  drop(): void;
  switchTransport(name: TransportName): void;
  /** Stops reading. The generation goes on as its detach policy says. */
  close(): void;
  /** Any number of iterators, each from the first event read. Leaving one early does not stop the reading. */
  [Symbol.asyncIterator](): AsyncGenerator<GenerationEvent, void, void>;
}

/**
 * Codes of this module: network, stream_cut, idle_timeout, bad_content_type (the third in a row is final), bad_event,
 * bad_body, bad_subprotocol, bad_url, wrong_generation, gap, goaway, already_ended, ws_<close code>, http_<status>,
 * digest_mismatch, gave_up (its cause is the last error), aborted, closed, invalid_argument, internal. Others are the
 * server's, or those of `failed`. generation_lost is either, or stands for the server's generation_not_found about a
 * generation that this reader had read from.
 */
export class RunnelError extends Error {
  constructor(code: string, message?: string, more?: {
    status?: number; retryable?: boolean; retryAfterMs?: number; cause?: unknown;
  });
  readonly code: string;
  readonly status?: number;
  /**
   * Whether making the same request again may succeed; of a `failed` event, and of generation_lost, whether starting
   * again may.
   */
  readonly retryable: boolean;
  readonly retryAfterMs?: number;
  readonly generationId?: string;
  /** What had been read; not verified. */
  readonly partial?: { texts: string[]; after: number };
}

/** Starts a generation and reads it. A string is a question. */
export function stream(request: GenerationRequest | string, options?: StreamOptions): GenerationStream;

/** Reads a generation that exists. */
export function attach(generationId: string, options?: AttachOptions): GenerationStream;

export interface SseMessage {
  type: string;
  data: string;
  lastEventId: string;
}

export class SseParser {
  /** `onComment` gets the text after the colon of each comment line. */
  constructor(onComment?: (comment: string) => void);
  readonly lastEventId: string;
  readonly retryMs: number | undefined;
  push(bytes: Uint8Array): SseMessage[];
}

export class Transcript {
  constructor(cursor?: { after?: number; texts?: string[] });
  readonly last: number;
  readonly whole: boolean;
  readonly texts: string[];
  text(choice?: number): string;
  apply(event: GenerationEvent): 'applied' | 'repeat' | 'missing';
  disagreement(done: DoneEvent): string | undefined;
}

export function crc32(bytes: Uint8Array, before?: number): number;
