// Types of runnel.js. Events are the JSON objects that the bridges send.

export type TransportName = 'sse' | 'websocket' | 'poll';
export type FinishReason = 'stop' | 'length' | 'cancelled' | 'content_filter' | 'tool_calls';
/** Later versions may add kinds: ignore parts whose kind is unknown. */
export type PartKind = 'text' | 'reasoning' | 'tool_call' | 'refusal' | 'unknown' | (string & {});
/**
 * A part is `open` until its response has ended. It is `complete` if its digest agrees and, for a tool call, the model
 * has finished it. Never execute a tool call that is not.
 */
export type PartState = 'open' | 'complete' | 'incomplete';

export interface ContentPart {
  type: 'text' | 'image_url';
  text?: string;
  /** A `data:` URL of a PNG, JPEG, WebP or GIF image. */
  image_url?: { url: string; detail?: string };
}

export interface CalledTool {
  id: string;
  type: 'function';
  function: { name: string; arguments: string };
}

export interface ChatMessage {
  role: 'system' | 'developer' | 'user' | 'assistant' | 'tool';
  /** May be null in a message of the assistant that has tool calls. */
  content?: string | ContentPart[] | null;
  /** Of the assistant. */
  tool_calls?: CalledTool[];
  /** Of the assistant: what it reasoned before its content. */
  reasoning_content?: string;
  /** Of a tool: the id of the call. */
  tool_call_id?: string;
}

export interface Tool {
  type: 'function';
  function: { name: string; description?: string; parameters?: object; strict?: boolean };
}

export type ToolChoice =
  | 'none' | 'auto' | 'required'
  | { type: 'function'; function: { name: string } }
  | {
    type: 'allowed_tools';
    allowed_tools: { mode: 'auto' | 'required'; tools: { type: 'function'; function: { name: string } }[] };
  };

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
  tools?: Tool[];
  tool_choice?: ToolChoice;
  parallel_tool_calls?: boolean;
  reasoning_effort?: string;
  presence_penalty?: number;
  frequency_penalty?: number;
  /** How long the generation continues without a reader, in milliseconds; null: until it ends. */
  detach?: { cancel_after_ms: number | null };
  metadata?: Record<string, string>;
}

interface LogEvent {
  gen: string;
  seq: number;
  /** Present once another replica has taken the generation over; part of the cursor. */
  epoch?: number;
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
  /** Empty for other kinds of parts than text. */
  text: string;
  tokens: number;
  /** Index of the part; absent for part 0 if that is text. */
  part?: number;
  /** Absent for text. */
  kind?: Exclude<PartKind, 'text'>;
  /** Output of other kinds than text; of a tool call, a piece of its arguments. */
  content?: string;
  /** In the delta that opens a tool call. */
  id?: string;
  name?: string;
  /** Present if several deltas were merged: the event covers first_seq..seq. */
  first_seq?: number;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  /** Absent if 0. */
  cached_prompt_tokens?: number;
  /** Absent if 0. */
  reasoning_tokens?: number;
}

export interface PartEnd {
  index: number;
  kind: PartKind;
  bytes: number;
  crc32: string;
  /** These are of tool calls. */
  id?: string;
  name?: string;
  complete?: boolean;
}

/** One part of the output. The content of a tool call is its arguments, as JSON. */
export interface Part {
  index: number;
  kind: PartKind;
  content: string;
  state: PartState;
  /** Of tool calls. Undefined if the call was opened before the cursor, until `done` names it. */
  id?: string;
  name?: string;
}

export interface DoneEvent extends LogEvent {
  type: 'done';
  final: true;
  events: number;
  choices: { index: number; finish_reason: FinishReason; text_bytes: number; crc32: string; parts?: PartEnd[] }[];
  usage: Usage;
}

export interface FailedEvent extends LogEvent {
  type: 'failed';
  final: true;
  error: { code: string; message: string; retryable: boolean };
}

/** The reader had events that the log does not have: replace all texts and parts by the snapshot; null: clear them. */
export interface GapEvent extends LogEvent {
  type: 'gap';
  requested_after: number;
  first_available: number;
  reason: 'after_beyond_end' | 'tail_lost';
  snapshot: { seq: number; choices: { index: number; text: string; parts?: Omit<Part, 'state'>[] }[] } | null;
}

/** Switch on `type` and ignore unknown types: later versions may add some. */
export type GenerationEvent = StartedEvent | DeltaEvent | DoneEvent | FailedEvent | GapEvent;

export interface Stats {
  /** From the start of the reader, or from options.startedAt, to the first text; null before that. */
  ttftMs: number | null;
  /** Rate after the first text; null until 50 ms have been measured. */
  tokensPerSecond: number | null;
  durationMs: number;
  tokens: number;
  /** Bytes of response bodies and WebSocket messages, without headers. */
  bytesReceived: number;
  reconnects: number;
  switches: number;
  repeatsDropped: number;
  gaps: number;
}

export interface Result {
  id: string;
  model: string | null;
  /** Text of the first choice. */
  text: string;
  texts: string[];
  finishReasons: FinishReason[];
  choices: { index: number; text: string; finishReason: FinishReason; parts: Part[] }[];
  /** Parts of the first choice: a single text part, or what the model reasoned, called and refused as well. */
  parts: Part[];
  /** The complete tool calls of the first choice. `arguments` is empty or one JSON object. */
  toolCalls: { id: string; name: string; arguments: string }[];
  usage: Usage | null;
  /** Number of events in the log. */
  events: number;
  /** True if count, lengths and checksums agree. False only after attach() with `after` and without what precedes it. */
  verified: boolean;
  stats: Stats;
}

/** connecting, streaming and reconnecting in any order, then one of the other three. */
export type Status = 'connecting' | 'streaming' | 'reconnecting' | 'verified' | 'failed' | 'closed';

/** What a generation is doing before its first token. Later versions may add stages. */
export interface Progress {
  stage: 'queued' | 'prefill' | 'decoding' | (string & {});
  /** From 1; null if unknown. */
  queuePosition: number | null;
  /** Share of the prompt that has been read, 0 to 1; null if unknown. */
  prefillShare: number | null;
}

/** News that is not an event of the log, so not in the iterator. Switch on `type` and ignore unknown types. */
export type Notice =
  /** A heartbeat reported new progress. */
  | ({ type: 'progress' } & Progress)
  /**
   * An intermediary is buffering: tokens arrive in bursts, `heldMs` long if that is known ('bursts'), or not at all
   * ('silence'). `offer` is the transport to pass to switchTransport(), or null if there is none. At most one notice
   * per transport.
   */
  | {
    type: 'buffered';
    transport: TransportName;
    offer: TransportName | null;
    cause: 'bursts' | 'silence';
    heldMs: number | null;
  }
  /** The next attempt is in `ms`, or earlier if the network or the page comes back. */
  | { type: 'waiting'; ms: number; error: RunnelError; offline: boolean }
  /**
   * The browser reports that it is offline. Open connections are kept. A broken connection is retried after `online`,
   * or after 30 s.
   */
  | { type: 'offline' }
  | { type: 'online' };

export interface Clock {
  /** Monotonic milliseconds. */
  now(): number;
  /** Milliseconds that include the time in which the machine sleeps; now() by default. */
  wall?(): number;
  /** Returns a function that cancels the timer. */
  setTimer(callback: () => void, ms: number): () => void;
}

export interface StreamOptions {
  /** 'sse' by default. */
  transport?: TransportName;
  /** Address of the SSE bridge, which also serves polling. The origin of the page by default. */
  baseUrl?: string;
  /** Another name for baseUrl. */
  sseUrl?: string;
  /** Full address of the WebSocket endpoint. baseUrl with ws: or wss: and /v1/ws by default. */
  wsUrl?: string;
  /** Aborting it stops the reader, as close() does. */
  signal?: AbortSignal;
  /** Bearer token, also sent in the first frame of a WebSocket. A function is called for each connection. */
  token?: string | (() => string | Promise<string>);
  headers?: Record<string, string>;
  credentials?: RequestCredentials;
  /** Random by default. Starts with the same key and the same request share one generation. */
  idempotencyKey?: string;
  /** Attempts without progress before the reader gives up; 20 by default. */
  maxRetries?: number;
  /** 250 by default; the wait before attempt n is random, from 0 to base * 2^n. */
  backoffBaseMs?: number;
  /** Longest backoff; 5000 by default. */
  backoffCapMs?: number;
  /** Longest Retry-After to obey; 60,000 by default. */
  maxRetryAfterMs?: number;
  /** Time without a byte, heartbeats included, after which a connection is dead; 35,000 (two heartbeats) by default. */
  idleTimeoutMs?: number;
  /** How long the server may hold a poll; 20 by default. */
  pollWaitSeconds?: number;
  /** Least time between empty polls; 250 by default. */
  pollMinMs?: number;
  /** The time, from performance.now(), that stats.ttftMs is measured from. */
  startedAt?: number;
  onStatus?(status: Status, stream: GenerationStream): void;
  onNotice?(notice: Notice, stream: GenerationStream): void;
  /** Called when a part opens, when its response has ended, and for each part after a gap. Events have its output. */
  onPart?(part: Part & { choice: number }, stream: GenerationStream): void;
  /** 'notify', the default, only sends the notice; 'switch' also takes the transport that it offers. */
  onBuffered?: 'notify' | 'switch';
  /** Source of online, visibility and page lifecycle events. Tests replace it, and the next two. */
  window?: unknown;
  clock?: Clock;
  random?: () => number;
  fetch?: typeof fetch;
  WebSocket?: unknown;
}

/** What a reader has read. */
export interface Cursor {
  /** seq of the last event applied; 0, the default, reads from the beginning. */
  after?: number;
  /** The epoch of that event; absent before a takeover. */
  epoch?: number;
  /** The texts up to there. Without them, the result cannot be verified. */
  texts?: string[];
  /** The parts up to there, by choice; empty for a choice of one text part. Needed only if there were other parts. */
  parts?: Omit<Part, 'state'>[][];
}

export interface AttachOptions extends StreamOptions, Cursor {}

export class GenerationStream implements AsyncIterable<GenerationEvent> {
  private constructor();
  readonly id: string | undefined;
  readonly model: string | null;
  readonly status: Status;
  readonly transport: TransportName;
  /** The progress that the last heartbeat reported; null before that, and after the first token. */
  readonly progress: Progress | null;
  readonly stats: Stats;
  /** Everything that another reader needs to continue: attach(cursor.id, cursor). */
  readonly cursor: Cursor & { id: string | undefined; after: number; texts: string[] };
  /** Why the last connection broke or the generation failed. */
  readonly lastError: RunnelError | null;
  /** The generation's id, once it is known. */
  readonly started: Promise<string>;
  /** The complete text, once it is verified; otherwise rejected with a RunnelError. */
  readonly result: Promise<Result>;
  /** The parts of the first choice so far. */
  readonly parts: Part[];
  partsOf(choice: number): Part[];
  /** The text so far. */
  text(choice?: number): string;
  /** Asks the engine to stop. The text then ends, verified, with finish reason `cancelled`. */
  cancel(): Promise<void>;
  /** Cuts the connection as a bad network would. The reader resumes over a new one. */
  drop(): void;
  switchTransport(name: TransportName): void;
  /** Stops reading. The generation continues as its detach policy says. */
  close(): void;
  /** Any number of iterators, each from the first event read. Leaving one early does not stop the reader. */
  [Symbol.asyncIterator](): AsyncGenerator<GenerationEvent, void, void>;
}

/** Every failure of this library. README.md lists the codes. */
export class RunnelError extends Error {
  constructor(code: string, message?: string, more?: {
    status?: number; retryable?: boolean; retryAfterMs?: number; cause?: unknown;
  });
  readonly code: string;
  readonly status: number | undefined;
  /** Whether the same request may succeed if it is made again. For `failed` and generation_lost: if started again. */
  readonly retryable: boolean;
  readonly retryAfterMs: number | undefined;
  readonly generationId: string | undefined;
  /** What had been read, not verified. */
  readonly partial: { texts: string[]; after: number; epoch?: number } | undefined;
}

/** Starts a generation and reads it. A string is the message of a user. */
export function stream(request: GenerationRequest | string, options?: StreamOptions): GenerationStream;

/** Reads an existing generation. */
export function attach(generationId: string, options?: AttachOptions): GenerationStream;

export interface SseMessage {
  type: string;
  data: string;
  lastEventId: string;
}

export class SseParser {
  /** `onComment` is called with the text after the colon of each comment. */
  constructor(onComment?: (comment: string) => void);
  readonly lastEventId: string;
  readonly retryMs: number | undefined;
  push(bytes: Uint8Array): SseMessage[];
}

export class Transcript {
  constructor(cursor?: Cursor);
  readonly last: number;
  readonly epoch: number;
  readonly whole: boolean;
  readonly texts: string[];
  text(choice?: number): string;
  apply(event: GenerationEvent): 'applied' | 'repeat' | 'missing';
  parts(choice?: number): Part[];
  /** The parts of a cursor. */
  readonly details: Cursor['parts'];
  /** The choices of which there is output. */
  readonly choices: number[];
  /** The part that the last event opened. */
  opened: { choice: number; index: number } | undefined;
  /** Gives every part its final state, once `done` agrees. Without it, the response has failed. */
  settle(done?: DoneEvent): void;
  /** Takes the parts of the event `attached`. */
  attach(parts: unknown): void;
  disagreement(done: DoneEvent): string | undefined;
}

export function crc32(bytes: Uint8Array, before?: number): number;
