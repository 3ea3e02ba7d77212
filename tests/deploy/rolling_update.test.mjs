// A new version without a cluster: every pod of all three Deployments is replaced in turn, like Deployments and the
// kubelet do, under live streams through one origin. No reader may lose or duplicate a token.
import assert from 'node:assert/strict';
import test from 'node:test';
import { Rehearsal } from './rehearsal.mjs';

const STREAMS = 500;
// 12 s per generation: longer than the bridges' drain, so that readers must move to another process; replicas wait for
// the longest generation. 1,500 events a second in total: half a core of the process that reads them.
const ANSWER = { tokens: 36, pace: 3 };
const INFERENCE_DRAIN_S = 60;

test(`three bridges of each kind and two replicas are replaced under ${STREAMS} live streams`, async (t) => {
  const rehearsal = await Rehearsal.start(t, { drain: INFERENCE_DRAIN_S });
  await rehearsal.read(t, STREAMS, ANSWER);
  // Like `kubectl apply` with another tag: the Deployments do not wait for each other.
  await Promise.all([rehearsal.rollBridges(), rehearsal.rollInference()]);
  await rehearsal.finish(t, STREAMS);
  for (const transport of ['sse', 'websocket']) {
    assert.ok(rehearsal.readers.moves[transport] >= 1, `no reader over ${transport} had to move, so the test shows nothing`);
  }
});
