// A script for the llama engine: its oracle is what an undisturbed process makes of the same request and seed. That
// process is asked once for each of a few requests, which many streams repeat.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Process, freePorts } from '../e2e/processes.mjs';
import { readGrpc } from './readers/grpc.mjs';

const HOST = '127.0.0.1';
const IDLE_MS = 60_000;
// More than run on most replicas, so that a fault strikes many in the middle of their text.
const SEQUENCES = 48;
// Asked of the undisturbed process at the same time: few, so that hardly any events are merged.
const AT_ONCE = 4;

/** Whether the binaries have the engine and its model. */
export const hasLlama = (bin) => existsSync(join(bin, 'runnel-test-model'));

/** Flags of a service that runs the tests' model of random weights, whose tokens depend on all tokens before them. */
export function llamaFlags(bin) {
  const model = join(mkdtempSync(join(tmpdir(), 'runnel-chaos-')), 'model.gguf');
  execFileSync(join(bin, 'runnel-test-model'), [model]);
  return ['--engine=llama', `--model=${model}`, '--model_id=random', '--llama_chat_template=chatml', '--llama_threads=1',
    '--llama_context=512', `--llama_sequences=${SEQUENCES}`];
}

/** What an undisturbed process responds to a number of requests. */
export class LlamaReference {
  #responses = new Map();
  #turns = Array.from({ length: AT_ONCE }, () => Promise.resolve());

  /** `flags`: of llamaFlags. */
  static async start(bin, flags, logs) {
    const reference = new LlamaReference();
    const [port, admin] = await freePorts(2);
    reference.address = `${HOST}:${port}`;
    reference.service = new Process(join(bin, 'runnel-inference'),
      [`--listen=${HOST}:${port}`, `--admin_listen=${HOST}:${admin}`, ...flags], `${HOST}:${admin}`, join(logs, 'reference.log'));
    process.on('exit', () => reference.service.child?.kill('SIGKILL'));
    await reference.service.start();
    return reference;
  }

  stop() {
    return this.service.stop();
  }

  /** Its response to a request of LlamaScript, which has a number: {lastSeq, choices}; see readResponse. */
  response(script) {
    const { request } = script;
    const turn = request % AT_ONCE;
    if (!this.#responses.has(request)) {
      this.#responses.set(request, this.#turns[turn] = this.#turns[turn].then(() => readResponse(this.address, script)));
    }
    return this.#responses.get(request);
  }
}

/**
 * Reads a response: {lastSeq, choices: [{text, reason, ends}]}, where `ends` has the characters and tokens of a choice
 * after each of its events at which one ended on the wire: a Map from the number of events to {length, tokens}.
 */
async function readResponse(address, { prompt, seed, maxTokens, choices: count, request }) {
  const script = { prompt, seed, maxTokens, choices: count, key: `reference-${request}`, metadata: () => ({}) };
  const choices = Array.from({ length: count }, () => ({ text: '', events: 0, tokens: 0, ends: new Map() }));
  for await (const event of readGrpc(address, { script, id: undefined, after: 0, epoch: 0, idleMs: IDLE_MS })) {
    if (event.type === 'delta') {
      const choice = choices[event.choice];
      choice.text += event.text;
      choice.events += event.seq - (event.first_seq ?? event.seq) + 1;
      choice.tokens += event.tokens;
      choice.ends.set(choice.events, { length: choice.text.length, tokens: choice.tokens });
    } else if (event.type === 'done') {
      for (const { index, finish_reason: reason } of event.choices) choices[index].reason = reason;
      return { lastSeq: event.seq, choices };
    } else if (event.type !== 'started') {
      throw new Error(`the undisturbed process sent ${JSON.stringify(event)}`);
    }
  }
  throw new Error('the undisturbed process sent no end');
}

/**
 * One generation, compared with the reference at every event. Which choice an event belongs to, and how many tokens the
 * wire merges, differs between runs; what a choice says, and in which steps, does not.
 */
export class LlamaScript {
  #reference;
  // After each event that a reader has had as the last one of a message: what it had of each choice.
  #at = new Map();
  #current;

  /** `request`: number of the request, which `random` reproduces. */
  constructor(random, { request, key }) {
    Object.assign(this, {
      request, key, prompt: `Request ${request}: ${'and so on '.repeat(random.whole(0, 12))}`, seed: random.whole(1, 2 ** 32),
      maxTokens: random.whole(20, 200), choices: random.chance(0.2) ? 2 : 1, fails: false, failAt: -1,
    });
  }

  /** Waits for what the reference says. */
  async prepare(reference) {
    this.#reference = await reference.response(this);
    this.lastSeq = this.#reference.lastSeq;
    this.reasons = this.#reference.choices.map(({ reason }) => reason);
    this.#forget();
    return this;
  }

  metadata() {
    return {};
  }

  body() {
    return { prompt: this.prompt, max_tokens: this.maxTokens, seed: this.seed, n: this.choices };
  }

  #forget() {
    this.#at = new Map([[1, this.#reference.choices.map(() => ({ length: 0, events: 0, tokens: 0 }))]]);
  }

  /** Takes a delta that covers `first` to its seq. Returns false if the reference says something else there. */
  learn({ choice, text, tokens, seq }, first) {
    const before = this.#at.get(first - 1);
    const said = this.#reference.choices[choice];
    if (before === undefined || said === undefined) return false;
    const { length, events, tokens: had } = before[choice];
    const after = { length: length + text.length, events: events + seq - first + 1, tokens: had + tokens };
    if (said.text.slice(length, after.length) !== text) return false;
    const end = said.ends.get(after.events);
    // After a snapshot, only the text is known.
    if (end !== undefined && !(end.length === after.length && (Number.isNaN(had) || end.tokens === after.tokens))) return false;
    const known = this.#at.get(seq);
    if (known !== undefined && known[choice].length !== after.length) return false;
    this.#at.set(seq, before.with?.(choice, after) ?? before.map((each, index) => (index === choice ? after : each)));
    this.#current = { first, choice, text, tokens };
    return true;
  }

  /** Takes a snapshot of everything up to `seq`, which replaces what was learned. */
  relearn(parts, seq) {
    this.#forget();
    const texts = parts.map((choice) => choice.map(({ content }) => content).join(''));
    if (!texts.every((text, choice) => this.#reference.choices[choice].text.startsWith(text))) return false;
    this.#at.set(seq, texts.map(({ length }) => ({ length, events: NaN, tokens: NaN })));
    return true;
  }

  /** Of the delta that was learned last. */
  delta(seq) {
    const { first, choice, text } = this.#current;
    return { choice, part: 0, kind: 'text', content: seq === first ? text : '' };
  }

  /** The number of tokens in the delta that was learned last, which `learn` has checked. */
  get tokensOfDelta() {
    return this.#current.tokens;
  }

  /** The parts of all choices after event `seq`, at which a message ended. */
  parts(seq = this.lastSeq) {
    const whole = seq >= this.lastSeq - 1;
    return this.#reference.choices.map(({ text }, choice) => {
      const content = whole ? text : text.slice(0, this.#at.get(seq)?.[choice].length ?? 0);
      return content === '' ? [] : [{ kind: 'text', content }];
    });
  }

  texts(seq) {
    return this.parts(seq).map((parts) => parts.map(({ content }) => content).join(''));
  }
}
