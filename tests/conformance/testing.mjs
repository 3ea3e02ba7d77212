// Helpers of the clients' checks.
import assert from 'node:assert/strict';

export const KEY = 'any-key';
export const MODEL = 'scripted';
export const SEED = 7;
const PATIENCE_MS = 15_000;

/** Metadata for the scripted engine. */
export function script({ tokens = 12, pace = 2000, ...more } = {}) {
  const metadata = {
    'scripted.tokens': `${tokens}`, 'scripted.tokens_per_second': `${pace}`, 'scripted.first_token_ms': '0',
  };
  for (const [key, value] of Object.entries(more)) metadata[`scripted.${key}`] = `${value}`;
  return metadata;
}

/**
 * A stop string that begins in the sixth token of the text and ends in the seventh, the text before it, and the number
 * of tokens of that text.
 */
export function stopWithin(text) {
  const words = text.split(' ');
  const stopString = `${[...words[5]].at(-1)} ${words[6]}`;
  const before = text.slice(0, text.indexOf(stopString));
  assert.equal(before.split(' ').length, 6, text);
  assert.ok(!before.endsWith(' '), text);
  return { stopString, before, beforeTokens: 6 };
}

/** Polls until a condition holds; the time limit only bounds a failure. */
export async function until(what, condition) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `${what} did not happen within ${PATIENCE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Runs `abort`; then `more` additional generations must have been cancelled and none may be running. */
export async function cancels(runnel, abort, more = 1) {
  const count = () => runnel.metric(runnel.inference, 'runnel_cancels_total');
  const before = await count();
  await abort();
  await until('the cancel', async () =>
    (await count()) === before + more && (await runnel.metric(runnel.inference, 'runnel_requests_running')) === 0);
}
