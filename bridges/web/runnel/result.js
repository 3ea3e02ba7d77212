// The result of a reader.

import { broken, RunnelError } from './errors.js';

/** Makes the result of a text whose digest agrees with `done`. */
export function makeResult(done, { id, model, transcript, stats }) {
  const choices = done.choices
    .map(({ index = 0, finish_reason: finishReason }) => {
      return { index, text: transcript.text(index), finishReason, parts: transcript.parts(index) };
    })
    .sort((a, b) => a.index - b.index);
  return {
    id,
    model,
    text: choices[0]?.text ?? '',
    texts: choices.map((choice) => choice.text),
    finishReasons: choices.map((choice) => choice.finishReason),
    choices,
    parts: choices[0]?.parts ?? [],
    toolCalls: completeCalls(choices[0]?.parts ?? []),
    usage: done.usage ?? null,
    events: done.events,
    // False only for a reader that was attached after a cursor without the texts before it.
    verified: transcript.whole,
    stats,
  };
}

function completeCalls(parts) {
  const calls = parts.filter(({ kind, state }) => kind === 'tool_call' && state === 'complete');
  return calls.map(({ id, name, content }) => ({ id, name, arguments: content }));
}

/** The error that a terminal event stands for, or undefined if the text is complete. */
export function failureOf(event, transcript) {
  if (event.type === 'failed') {
    const { code = 'engine_failed', message, retryable = false } = event.error ?? {};
    return new RunnelError(code, message, { retryable });
  }
  const disagreement = transcript.disagreement(event);
  return disagreement && new RunnelError('digest_mismatch', disagreement);
}

/** Throws if `id` is not the id of a generation, or differs from `known`. */
export function checkId(id, known = id) {
  if (typeof id !== 'string' || !/^gen_[A-Za-z0-9_-]{1,64}$/.test(id)) {
    throw broken('bad_event', 'malformed generation id');
  }
  if (id !== known) throw broken('wrong_generation', `events of ${id} in the stream of ${known}`);
}
