// Scripts of any shape, which a seed reproduces.
import { Script } from './script.mjs';

/** Reasoning, text, calls that take turns, a call, text, perhaps a refusal: sometimes cut in the middle by the limit of tokens. */
function partsOf(random) {
  const some = (kind) => ({ kind, tokens: random.whole(1, 40) });
  const call = (...names) => ({ kind: 'tool_call', names, tokens: random.pick([0, 1, 8, 30]) });
  const segments = [
    some('reasoning'), some('text'), call('weather', 'time'), some('reasoning'), call('search'), some('text'),
    some('refusal'), call('a', 'b', 'c'),
  ].filter(() => random.chance(0.7));
  return segments.length === 0 ? [some('reasoning'), some('text')] : segments;
}

/** `more`: options of the script, of which `key` is required; they win over random ones. `Kind`: its class. */
export function randomScript(random, { Kind = Script, ...more }) {
  const tokens = random.whole(1, 250);
  const segments = random.chance(0.5) ? partsOf(random) : undefined;
  return new Kind({
    seed: random.whole(1, 2 ** 32), tokens, segments, maxTokens: segments && random.chance(0.2) ? tokens : undefined,
    pace: random.pick([20, 40, 80, 200]), firstTokenMs: random.whole(0, 1500),
    choices: random.chance(0.2) ? random.whole(2, 3) : 1,
    failAt: random.chance(0.05) ? random.whole(0, tokens) : -1,
    cancelAt: random.chance(0.05) ? random.whole(1, tokens) : undefined,
    ...more,
  });
}
