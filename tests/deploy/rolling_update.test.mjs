// A rolling update without a cluster: every pod is replaced in turn as a Deployment and the kubelet would, under live
// streams, and no reader loses or doubles a token. RUNNEL_ROLL=long: 500 streams and the waits of the manifests.
import assert from 'node:assert/strict';
import test from 'node:test';
import { freePorts } from '../e2e/processes.mjs';
import { Balancer } from './balancer.mjs';
import { Deployment, headlessService } from './pods.mjs';
import { Readers } from './readers.mjs';

assert.ok(process.env.RUNNEL_CONFINED, 'run this by confined.sh');

// Answers are longer than bridges wait for, so that readers have to go on elsewhere; replicas wait for the longest.
const FORM = process.env.RUNNEL_ROLL === 'long'
  ? { streams: 500, tokens: 300, pace: 5, preStop: 5, notice: 5, bridgeDrain: 30, inferenceDrain: 300 }
  : { streams: 100, tokens: 60, pace: 10, preStop: 1, notice: 1, bridgeDrain: 2, inferenceDrain: 30 };
const TO_END_S = 10;

const waits = (drain) => ({
  preStopMs: FORM.preStop * 1000,
  graceMs: (FORM.preStop + FORM.notice + drain + TO_END_S) * 1000,
});

async function startAll(t) {
  const [balancerPort] = await freePorts(1);
  const balancer = await Balancer.start(`127.0.0.1:${balancerPort}`, process.env.RUNNEL_CONFINED);
  const service = headlessService('runnel-inference-replicas');
  const inference = new Deployment({
    program: 'runnel-inference',
    flags: ['--engine=scripted', `--drain_notice=${FORM.notice}s`, `--drain_timeout=${FORM.inferenceDrain}s`],
    onChange: (ips) => service.set(ips),
  });
  const bridges = new Deployment({
    program: 'runnel-sse',
    flags: ['--api_keys_file=', `--inference=${service.target}`, `--drain_notice=${FORM.notice}s`,
      `--drain_timeout=${FORM.bridgeDrain}s`],
    onServing: (address) => balancer.add(address),
    onLeaving: (address) => balancer.remove(address),
  });
  t.after(async () => {
    await Promise.all([bridges.stop(), inference.stop(), balancer.stop()]);
  });
  for (const deployment of [inference, inference, bridges, bridges, bridges]) await deployment.add();
  return { balancer, inference, bridges };
}

test(`three bridges and two replicas are replaced under ${FORM.streams} live streams`, async (t) => {
  const { balancer, inference, bridges } = await startAll(t);
  const request = {
    prompt: 'go', max_tokens: FORM.tokens,
    metadata: { 'scripted.tokens': String(FORM.tokens), 'scripted.tokens_per_second': String(FORM.pace) },
  };
  const readers = new Readers(FORM.streams, request, { baseUrl: balancer.url, transport: 'sse' });
  t.after(() => readers.abandon());
  await Promise.all([bridges.allCount('runnel_streams_active'), inference.allCount('runnel_requests_running')]);
  await bridges.roll(waits(FORM.bridgeDrain));
  await inference.roll(waits(FORM.inferenceDrain));
  await readers.finish();
  for (const line of readers.report()) t.diagnostic(line);
  assert.deepEqual(readers.faults, []);
  assert.equal(readers.verified, readers.started);
  assert.ok(readers.started >= FORM.streams);
  assert.ok(readers.reconnects >= 1, 'no reader had to move: nothing was shown');
});
