// The rolling update with a shared log: replicas do not wait for their generations but hand them over, and one dies in
// between. No reader may lose or duplicate a token, or see a gap.
import assert from 'node:assert/strict';
import test from 'node:test';
import { LogStore, missing } from './log_store.mjs';
import { Rehearsal } from './rehearsal.mjs';

if (missing) console.log(`SKIPPED: ${missing}`);

const STREAMS = 200;
// 20 s per generation: four times the replicas' drain, so that a replica cannot wait for them.
const ANSWER = { tokens: 60, pace: 3 };
const INFERENCE_DRAIN_S = 5;

/** Adds up a counter of pods that come and go: call `note` while they still run. */
class Takeovers {
  #seen = new Map();

  async note(inference) {
    for (const cause of ['drain', 'refused', 'lease']) {
      const now = await inference.sum('runnel_takeovers_total', new RegExp(`cause="${cause}"`));
      this.#seen.set(cause, Math.max(this.#seen.get(cause) ?? 0, now));
    }
  }

  of(...causes) {
    return causes.reduce((sum, cause) => sum + (this.#seen.get(cause) ?? 0), 0);
  }
}

test(`replicas are replaced, and one is killed, under ${STREAMS} live streams with a shared log`, { skip: missing }, async (t) => {
  const store = await LogStore.start(t);
  const rehearsal = await Rehearsal.start(t, { drain: INFERENCE_DRAIN_S, flags: store.flags });
  const { inference } = rehearsal;
  await rehearsal.read(t, STREAMS, ANSWER);
  const takeovers = new Takeovers();

  await Promise.all([rehearsal.rollBridges(), rehearsal.rollInference()]);
  await inference.allCount('runnel_requests_running');
  await takeovers.note(inference);
  assert.ok(takeovers.of('drain') > 0, 'no generation was handed over, so the test shows nothing');

  await inference.crash();
  await inference.allCount('runnel_requests_running');
  await rehearsal.finish(t, STREAMS);
  await takeovers.note(inference);
  assert.ok(takeovers.of('refused', 'lease') > 0, 'no generation survived its replica, so the test shows nothing');
  t.diagnostic(`taken over: ${takeovers.of('drain')} in the roll, ${takeovers.of('refused', 'lease')} after the kill`);

  for (const counter of ['runnel_log_unprotected_seconds_total', 'runnel_log_lost_tail_total']) {
    assert.equal(await inference.sum(counter), 0, counter);
  }
  store.assertNothingDenied();
  t.diagnostic(`commands of the store: ${store.commands().sort().join(' ')}`);
});
