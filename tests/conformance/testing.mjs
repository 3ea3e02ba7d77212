// What the clients' checks have in common.
import assert from 'node:assert/strict';

export const KEY = 'any-key';
export const MODEL = 'scripted';
export const SEED = 7;
const PATIENCE_MS = 15_000;

/** What the scripted engine is to do. */
export function script({ tokens = 12, pace = 2000, ...more } = {}) {
  const metadata = {
    'scripted.tokens': `${tokens}`, 'scripted.tokens_per_second': `${pace}`, 'scripted.first_token_ms': '0',
  };
  for (const [key, value] of Object.entries(more)) metadata[`scripted.${key}`] = `${value}`;
  return metadata;
}

/**
 * A stop string that begins in the sixth token of the text and ends in the seventh, what comes before it, and how many
 * tokens that is.
 */
export function stopWithin(text) {
  const words = text.split(' ');
  const stopString = `${[...words[5]].at(-1)} ${words[6]}`;
  const before = text.slice(0, text.indexOf(stopString));
  assert.equal(before.split(' ').length, 6, text);
  assert.ok(!before.endsWith(' '), text);
  return { stopString, before, beforeTokens: 6 };
}

/** Waits for a condition, which is polled; fails after a bound that is no pace. */
export async function until(what, condition) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `${what} did not come true`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Runs `abort`, after which one generation more, or `more`, must have been cancelled and none be running. */
export async function cancels(runnel, abort, more = 1) {
  const count = () => runnel.metric(runnel.inference, 'runnel_cancels_total');
  const before = await count();
  await abort();
  await until('the cancel', async () =>
    (await count()) === before + more && (await runnel.metric(runnel.inference, 'runnel_requests_running')) === 0);
}
