// A new version without a cluster: every pod of all three Deployments is replaced in turn, like Deployments and the
// kubelet do, under live streams through one origin. No reader may lose or duplicate a token.
import assert from 'node:assert/strict';
import { loadavg } from 'node:os';
import test from 'node:test';
import { webSocketClass } from '../chaos/readers/web_socket.mjs';
import { freePorts } from '../e2e/processes.mjs';
import { Balancer } from './balancer.mjs';
import { Deployment, headlessService } from './pods.mjs';
import { Readers } from './readers.mjs';

assert.ok(process.env.RUNNEL_CONFINED, 'run this by confined.sh');

const STREAMS = 500;
// 12 s per generation: longer than the bridges' drain, so that readers must move to another process; replicas wait for
// the longest generation. 1,500 events a second in total: half a core of the process that reads them.
const ANSWER = { tokens: 36, pace: 3 };
const PRE_STOP_S = 1;
const NOTICE_S = 1;
const BRIDGE_DRAIN_S = 5;
const INFERENCE_DRAIN_S = 60;
// Twice the value in the manifests, because on a busy machine all readers together take long to reconnect.
const LINGER_S = 10;
const TO_END_S = 20;
// Above the heartbeat interval of the bridges.
const IDLE_MS = 35_000;

const waits = (drain) => ({
  preStopMs: PRE_STOP_S * 1000,
  graceMs: (PRE_STOP_S + NOTICE_S + drain + TO_END_S) * 1000,
});

function bridgesOf(program, backend, { balancer, service }) {
  return new Deployment({
    program,
    flags: ['--api_keys_file=', `--inference=${service.target}`, `--drain_notice=${NOTICE_S}s`,
      `--drain_timeout=${BRIDGE_DRAIN_S}s`],
    onServing: (address) => balancer.add(backend, address),
    onLeaving: (address) => balancer.remove(address),
  });
}

async function startAll(t) {
  const [balancerPort] = await freePorts(1);
  const balancer = await Balancer.start(`127.0.0.1:${balancerPort}`, process.env.RUNNEL_CONFINED);
  const service = headlessService('runnel-inference-replicas');
  const inference = new Deployment({
    program: 'runnel-inference',
    flags: ['--engine=scripted', `--drain_notice=${NOTICE_S}s`, `--drain_timeout=${INFERENCE_DRAIN_S}s`,
      `--drain_linger=${LINGER_S}s`],
    onChange: (ips) => service.set(ips),
  });
  const sse = bridgesOf('runnel-sse', 'sse', { balancer, service });
  const ws = bridgesOf('runnel-ws', 'ws', { balancer, service });
  t.after(async () => {
    await Promise.all([...[inference, sse, ws].map((deployment) => deployment.stop()), balancer.stop()]);
  });
  for (const deployment of [inference, inference, sse, ws, sse, ws, sse, ws]) await deployment.add();
  return { balancer, inference, sse, ws };
}

test(`three bridges of each kind and two replicas are replaced under ${STREAMS} live streams`, async (t) => {
  const { balancer, inference, sse, ws } = await startAll(t);
  const WebSocket = webSocketClass(IDLE_MS);
  const readers = new Readers(STREAMS, ANSWER,
    (i) => ({ baseUrl: balancer.url, transport: i % 2 === 0 ? 'sse' : 'websocket', WebSocket }));
  t.after(() => readers.abandon());
  await Promise.all([sse, ws].map((bridges) => bridges.allCount('runnel_streams_active')));
  await inference.allCount('runnel_requests_running');
  // Like `kubectl apply` with another tag: the Deployments do not wait for each other.
  await Promise.all([
    sse.roll(waits(BRIDGE_DRAIN_S)), ws.roll(waits(BRIDGE_DRAIN_S)), inference.roll(waits(INFERENCE_DRAIN_S)),
  ]);
  await readers.finish();
  for (const line of readers.report()) t.diagnostic(line);
  t.diagnostic(`load of the machine: ${loadavg().map((load) => load.toFixed(1)).join(' ')}`);
  assert.deepEqual(readers.tally.firstFaults, []);
  assert.equal(readers.verified, readers.tally.streams);
  assert.ok(readers.tally.streams >= STREAMS);
  for (const transport of ['sse', 'websocket']) {
    assert.ok(readers.moves[transport] >= 1, `no reader over ${transport} had to move, so the test shows nothing`);
  }
});
