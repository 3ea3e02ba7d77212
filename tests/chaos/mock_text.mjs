// The text of the mock inference server, computed independently. Must agree with
// tests/bench/peers/upstream_mock/numbered_token.cc.
import { mix } from './random.mjs';

const WORDS = ['the', 'river', 'of', 'tokens', 'runs', 'down', 'towards', 'an', 'unbelievably', 'long', 'sea.', 'naïve',
  '🌊', 'café', '"so"', 'end.\n'];

export const promptOf = ({ seed, tokens, pace, parts }) =>
  `mock-plan seed=${seed} tokens=${tokens} pace=${pace} phase=0${parts ? ' parts=1' : ''}`;

/** The part of a token, in a plan with parts: reasoning, text, or one of two calls. */
export const partOf = (plan, index) => Math.floor((index * 4) / plan.tokens);

/** The kinds of the parts that the first `tokens` tokens of a plan with parts have. */
export function kindsOf(plan, tokens) {
  const parts = Array.from({ length: tokens }, (_, index) => partOf(plan, index));
  return [...new Set(parts)].map((part) => ['reasoning', 'text', 'tool_call', 'tool_call'][part]);
}

/** The tokens in the arguments of a call, of which the end may be missing. */
export function textOfArguments(json) {
  const inner = json.slice('{"t":"'.length, json.endsWith('"}') ? -2 : undefined);
  return JSON.parse(`"${inner}"`);
}

function wordAt(seed, index) {
  return WORDS[Number(mix(((BigInt(seed) << 32n) | BigInt(index)) & 0xffffffffffffffffn) % 16n)];
}

/**
 * Compares a text with the plan of its request. Returns the number of whole tokens at its start and the rest, which is
 * empty if the text is that of the plan so far. The words depend on the seed, so a text of another plan has a rest.
 */
export function readTokens(plan, text) {
  const head = /( ?)(\d+):(?:(\d+):)?(\d+)\|/y;
  let tokens = 0;
  let writtenAt = 0;
  let at = 0;
  for (; at < text.length && tokens < plan.tokens; tokens++) {
    head.lastIndex = at;
    const [all, blank, index, received, written] = head.exec(text) ?? [];
    const right = all !== undefined && Number(index) === tokens && (blank === ' ') === (tokens > 0) &&
      (received !== undefined) === (tokens === 0) && Number(written) >= writtenAt;
    const word = wordAt(plan.seed, tokens);
    if (!right || !text.startsWith(word, head.lastIndex)) break;
    writtenAt = Number(written);
    at = head.lastIndex + word.length;
  }
  return { tokens, rest: text.slice(at) };
}
