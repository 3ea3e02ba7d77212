// What a reader has in the end.

import { broken, RunnelError } from './errors.js';

/** Of an answer whose digest agrees with `done`. */
export function makeResult(done, { id, model, transcript, stats }) {
  const choices = done.choices
    .map((end) => ({ index: end.index ?? 0, text: transcript.text(end.index), finishReason: end.finish_reason }))
    .sort((a, b) => a.index - b.index);
  return {
    id,
    model,
    text: choices[0]?.text ?? '',
    texts: choices.map((choice) => choice.text),
    finishReasons: choices.map((choice) => choice.finishReason),
    choices,
    usage: done.usage ?? null,
    events: done.events,
    // False only for an attach in the middle that was given no texts.
    verified: transcript.whole,
    stats,
  };
}

/** Why a terminal event is no result, or undefined if it is one. */
export function failureOf(event, transcript) {
  if (event.type === 'failed') {
    const { code = 'engine_failed', message, retryable = false } = event.error ?? {};
    return new RunnelError(code, message, { retryable });
  }
  const disagreement = transcript.disagreement(event);
  return disagreement && new RunnelError('digest_mismatch', disagreement);
}

/** Throws if `id` is no id of a generation, or another than `known`. */
export function checkId(id, known = id) {
  if (typeof id !== 'string' || !/^gen_[A-Za-z0-9_-]{1,64}$/.test(id)) {
    throw broken('bad_event', 'bad generation id');
  }
  if (id !== known) throw broken('wrong_generation', `events of ${id} among those of ${known}`);
}
