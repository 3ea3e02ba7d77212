// All three Deployments without a cluster, behind one origin, for rehearsals of what operators do to them.
import assert from 'node:assert/strict';
import { loadavg } from 'node:os';
import { webSocketClass } from '../chaos/readers/web_socket.mjs';
import { freePorts } from '../e2e/processes.mjs';
import { Balancer } from './balancer.mjs';
import { Deployment, headlessService } from './pods.mjs';
import { Readers } from './readers.mjs';

assert.ok(process.env.RUNNEL_CONFINED, 'run this by confined.sh');

const PRE_STOP_S = 1;
const NOTICE_S = 1;
const BRIDGE_DRAIN_S = 5;
// Twice the value in the manifests, because on a busy machine all readers together take long to reconnect.
const LINGER_S = 10;
const TO_END_S = 20;
// Above the heartbeat interval of the bridges.
const IDLE_MS = 35_000;

/** How the kubelet ends a pod whose --drain_timeout is `drain` seconds. */
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

/** Two replicas and three bridges of each kind. `drain`: --drain_timeout of the replicas in seconds. */
export class Rehearsal {
  static async start(t, { drain, flags = [] }) {
    const rehearsal = new Rehearsal();
    const [balancerPort] = await freePorts(1);
    const balancer = await Balancer.start(`127.0.0.1:${balancerPort}`, process.env.RUNNEL_CONFINED);
    const service = headlessService('runnel-inference-replicas');
    const inference = new Deployment({
      program: 'runnel-inference',
      flags: ['--engine=scripted', `--drain_notice=${NOTICE_S}s`, `--drain_timeout=${drain}s`,
        `--drain_linger=${LINGER_S}s`, ...flags],
      onChange: (ips) => service.set(ips),
    });
    const sse = bridgesOf('runnel-sse', 'sse', { balancer, service });
    const ws = bridgesOf('runnel-ws', 'ws', { balancer, service });
    Object.assign(rehearsal, { url: balancer.url, drain, inference, sse, ws });
    t.after(async () => {
      await Promise.all([...[inference, sse, ws].map((deployment) => deployment.stop()), balancer.stop()]);
    });
    for (const deployment of [inference, inference, sse, ws, sse, ws, sse, ws]) await deployment.add();
    return rehearsal;
  }

  /** Resolves once `count` readers of generations like `answer`, half of them over SSE, keep every pod busy. */
  async read(t, count, answer) {
    const WebSocket = webSocketClass(IDLE_MS);
    this.readers = new Readers(count, answer,
      (i) => ({ baseUrl: this.url, transport: i % 2 === 0 ? 'sse' : 'websocket', WebSocket }));
    t.after(() => this.readers.abandon());
    await Promise.all([this.sse, this.ws].map((bridges) => bridges.allCount('runnel_streams_active')));
    await this.inference.allCount('runnel_requests_running');
  }

  rollBridges() {
    return Promise.all([this.sse, this.ws].map((bridges) => bridges.roll(waits(BRIDGE_DRAIN_S))));
  }

  rollInference() {
    return this.inference.roll(waits(this.drain));
  }

  /** Reads on to the end of every generation: each event must have been there once, and every response be verified. */
  async finish(t, count) {
    const { readers } = this;
    await readers.finish();
    for (const line of readers.report()) t.diagnostic(line);
    t.diagnostic(`load of the machine: ${loadavg().map((load) => load.toFixed(1)).join(' ')}`);
    assert.deepEqual(readers.tally.firstFaults, []);
    assert.equal(readers.verified, readers.tally.streams);
    assert.ok(readers.tally.streams >= count);
  }
}
