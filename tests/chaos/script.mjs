// The text of the scripted engine, computed independently: the oracle of every test here. Must agree with
// services/inference/engines/scripted_words.cc, and uses nothing that was received.
import { mix } from './random.mjs';

const WORDS = [
  'water', 'runs', 'down', 'the', 'hill', 'and', 'carries', 'small', 'stones', 'to', 'sea', 'where', 'light', 'falls',
  'on', 'waves', 'of', 'green', 'glass', 'while', 'birds', 'turn', 'slow', 'circles', 'over', 'sand', 'a', 'boat',
  'waits', 'for', 'wind', 'from', 'north', 'it', 'will', 'come', 'before', 'dark', 'says', 'old', 'man', 'who',
  'mends', 'nets', 'café', 'naïve', 'Übung', '東京', '水', '🌊', 'привет', 'señor', 'fjörd', 'Ωmega', 'we', 'listen',
  'then', 'sail', 'home', 'with', 'silver', 'fish,', 'bread,', 'salt.',
];

const wordAt = (seed, choice, index) => WORDS[Number(mix(BigInt(seed) ^ mix((BigInt(choice) << 32n) | BigInt(index))) % 64n)];

/**
 * The tokens of a choice, as {part, kind, first, before, after, call, name}: the word of a token has a blank in front of
 * it unless it is the first of its segment, and `before` and `after` around it. A token that opens a call has no word.
 * `segments`: [{kind, tokens} or {kind: 'tool_call', names, tokens}], as the engine's scripted.parts.
 */
function layOut(segments) {
  const layout = [];
  let parts = 0;
  let calls = 0;
  for (const { kind, tokens, names } of segments) {
    if (kind !== 'tool_call') {
      const continues = layout.length > 0 && layout.at(-1).kind === kind;
      const part = continues ? layout.at(-1).part : parts++;
      for (let i = 0; i < tokens; i++) layout.push({ part, kind, first: i === 0, before: '', after: '' });
      continue;
    }
    names.forEach((name, i) => layout.push({ part: parts + i, kind, call: calls + i, name }));
    for (let i = 0; i < tokens; i++) {
      for (let j = 0; j < names.length; j++) {
        layout.push({ part: parts + j, kind, first: i === 0, before: i === 0 ? '{"words":"' : '',
          after: i === tokens - 1 ? '"}' : '' });
      }
    }
    parts += names.length;
    calls += names.length;
  }
  return layout;
}

const itemOf = ({ kind, tokens, names }) => (kind === 'tool_call' ? `call:${names.join('+')}:${tokens}` : `${kind}:${tokens}`);

/**
 * One generation: its request and every event of its log. `cancelAt`: the event at which its reader cancels, which may
 * be too late. `segments`, in place of `tokens`: output of several parts, see layOut. `maxTokens`: what the request
 * allows, if less. `salt`: in place of that of the replica; empty: none.
 */
export class Script {
  constructor(options) {
    Object.assign(this, { prompt: 'go', firstTokenMs: 20, choices: 1, failAt: -1, stallAt: -1 }, options);
    if (this.segments !== undefined) this.layout = layOut(this.segments);
    this.tokens = this.layout?.length ?? this.tokens;
    this.maxTokens ??= Math.max(this.tokens, 1);
    const { choices, failAt } = this;
    const tokens = Math.min(this.tokens, this.maxTokens);
    this.fails = failAt >= 0 && failAt <= tokens;
    this.steps = this.fails ? failAt : tokens;
    this.finishReason = this.maxTokens < this.tokens ? 'length'
      : this.segments?.some(({ kind }) => kind === 'tool_call') ? 'tool_calls' : 'stop';
    /** The seq of the terminal event, unless the generation is cancelled before. */
    this.lastSeq = 2 + this.steps * choices;
    this.cache = [];
  }

  metadata() {
    return {
      ...(this.segments ? { 'scripted.parts': this.segments.map(itemOf).join() } : { 'scripted.tokens': String(this.tokens) }),
      'scripted.tokens_per_second': String(this.pace),
      'scripted.first_token_ms': String(this.firstTokenMs),
      ...(this.failAt >= 0 && { 'scripted.fail_at': String(this.failAt) }),
      ...(this.stallAt >= 0 && { 'scripted.stall_at': String(this.stallAt) }),
      ...(this.salt !== undefined && { 'scripted.salt': this.salt }),
    };
  }

  /** The body of POST /v1/generations. */
  body() {
    return {
      prompt: this.prompt, max_tokens: this.maxTokens, seed: this.seed, n: this.choices, metadata: this.metadata(),
      ...(this.detachMs !== undefined && { detach: { cancel_after_ms: this.detachMs } }),
    };
  }

  /**
   * Event `seq` as {choice, part, kind, content}, with {id, name} if it opens a call; undefined if it is not a delta.
   * `index` is the number of its token, and `wordAt` where the word begins in its content, unless it has none.
   */
  delta(seq) {
    if (seq < 2 || seq >= this.lastSeq) return undefined;
    return (this.cache[seq - 2] ??= this.#delta((seq - 2) % this.choices, Math.floor((seq - 2) / this.choices)));
  }

  #delta(choice, index) {
    const word = wordAt(this.seed, choice, index);
    if (this.layout === undefined) {
      const blank = index === 0 ? '' : ' ';
      return { choice, part: 0, kind: 'text', content: `${blank}${word}`, index, wordAt: blank.length };
    }
    const { part, kind, first, before, after, call, name } = this.layout[index];
    if (name !== undefined) return { choice, part, kind, content: '', id: `call_${this.seed.toString(16)}_${choice}_${call}`, name };
    const lead = `${before}${first ? '' : ' '}`;
    return { choice, part, kind, content: `${lead}${word}${after}`, index, wordAt: lead.length };
  }

  /** The parts of all choices after event `seq`, each as {kind, content}, with {id, name} of a call. */
  parts(seq = this.lastSeq) {
    const choices = Array.from({ length: this.choices }, () => []);
    for (let at = 2; at <= Math.min(seq, this.lastSeq - 1); at++) appendTo(choices, this.delta(at));
    return choices;
  }

  /** The texts of all choices after event `seq`. */
  texts(seq = this.lastSeq) {
    return this.parts(seq).map(textOf);
  }
}

/** Adds a delta as of Script.delta to the parts of its choice. */
export function appendTo(choices, { choice, part, kind, content, id, name }) {
  const parts = choices[choice];
  parts[part] ??= { kind, content: '', ...(id !== undefined && { id, name }) };
  parts[part].content += content;
}

export const textOf = (parts) => parts.filter(({ kind }) => kind === 'text').map(({ content }) => content).join('');

/** A choice with at most one part, of text, has no description of parts in any message. */
export const isPlain = (parts) => parts.length === 0 || (parts.length === 1 && parts[0].kind === 'text');
