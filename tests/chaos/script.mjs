// The text of the scripted engine, computed independently: the oracle of every test here. Must agree with
// services/inference/engines/scripted_engine.cc, and uses nothing that was received.
import { mix } from './random.mjs';

const WORDS = [
  'water', 'runs', 'down', 'the', 'hill', 'and', 'carries', 'small', 'stones', 'to', 'sea', 'where', 'light', 'falls',
  'on', 'waves', 'of', 'green', 'glass', 'while', 'birds', 'turn', 'slow', 'circles', 'over', 'sand', 'a', 'boat',
  'waits', 'for', 'wind', 'from', 'north', 'it', 'will', 'come', 'before', 'dark', 'says', 'old', 'man', 'who',
  'mends', 'nets', 'café', 'naïve', 'Übung', '東京', '水', '🌊', 'привет', 'señor', 'fjörd', 'Ωmega', 'we', 'listen',
  'then', 'sail', 'home', 'with', 'silver', 'fish,', 'bread,', 'salt.',
];

function token(seed, choice, index) {
  const word = WORDS[Number(mix(BigInt(seed) ^ mix((BigInt(choice) << 32n) | BigInt(index))) % 64n)];
  return index === 0 ? word : ` ${word}`;
}

/**
 * One generation: its request and every event of its log. `cancelAt`: the event at which its reader cancels, which may
 * be too late.
 */
export class Script {
  constructor(options) {
    Object.assign(this, { firstTokenMs: 20, choices: 1, failAt: -1, stallAt: -1 }, options);
    const { tokens, choices, failAt } = this;
    this.fails = failAt >= 0 && failAt <= tokens;
    this.steps = this.fails ? failAt : tokens;
    /** The seq of the terminal event, unless the generation is cancelled before. */
    this.lastSeq = 2 + this.steps * choices;
    this.cache = [];
  }

  metadata() {
    return {
      'scripted.tokens': String(this.tokens),
      'scripted.tokens_per_second': String(this.pace),
      'scripted.first_token_ms': String(this.firstTokenMs),
      ...(this.failAt >= 0 && { 'scripted.fail_at': String(this.failAt) }),
      ...(this.stallAt >= 0 && { 'scripted.stall_at': String(this.stallAt) }),
    };
  }

  /** The body of POST /v1/generations. */
  body() {
    return {
      prompt: 'go', max_tokens: Math.max(this.tokens, 1), seed: this.seed, n: this.choices, metadata: this.metadata(),
      ...(this.detachMs !== undefined && { detach: { cancel_after_ms: this.detachMs } }),
    };
  }

  /** Event `seq` as {choice, text}; undefined if it is not a delta. */
  delta(seq) {
    if (seq < 2 || seq >= this.lastSeq) return undefined;
    const place = seq - 2;
    return (this.cache[place] ??= {
      choice: place % this.choices,
      text: token(this.seed, place % this.choices, Math.floor(place / this.choices)),
    });
  }

  /** The texts of all choices after event `seq`. */
  texts(seq = this.lastSeq) {
    const texts = Array.from({ length: this.choices }, () => '');
    for (let at = 2; at <= Math.min(seq, this.lastSeq - 1); at++) texts[this.delta(at).choice] += this.delta(at).text;
    return texts;
  }
}
