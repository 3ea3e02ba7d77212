// Pods without a cluster: programs confined like in one, each with its own address, and a kubelet that ends them.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePorts, metricOf, Process } from '../e2e/processes.mjs';

// One of 64,000 networks within loopback, so that concurrent runs do not conflict.
const random = () => 1 + Math.floor(Math.random() * 254);
const NETWORK = `127.${random()}.${random()}`;
let pods = 0;
const BUSY_MS = 120_000;

const [port, adminPort] = await freePorts(2);

class Pod {
  constructor(program, flags) {
    this.name = `${program}-${++pods}`;
    this.ip = `${NETWORK}.${pods}`;
    this.address = `${this.ip}:${port}`;
    const replica = program === 'runnel-inference' ? [`--replica=${this.name}`] : [];
    const admin = `${this.ip}:${adminPort}`;
    const listen = [`--listen=${this.address}`, `--admin_listen=${admin}`];
    const args = ['--flagfile=/etc/runnel/base.flags', ...replica, ...listen, ...flags];
    this.process = new Process(join(process.env.RUNNEL_BIN, program), args, admin,
      join(process.env.RUNNEL_CONFINED, `${this.name}.log`));
  }

  metric(name, labels) {
    return metricOf(this.process, name, labels);
  }

  /** Ends a pod like the kubelet: preStop, SIGTERM, and SIGKILL after the grace period, which must not be needed. */
  async end({ preStopMs, graceMs }) {
    // This wait is part of the rehearsal: the kubelet waits for a time, not for a condition.
    await new Promise((resolve) => setTimeout(resolve, preStopMs));
    const { child } = this.process;
    const gone = once(child, 'exit');
    const kill = setTimeout(() => child.kill('SIGKILL'), graceMs - preStopMs);
    child.kill('SIGTERM');
    const end = await gone;
    clearTimeout(kill);
    assert.deepEqual(end, [0, null], `${this.name} had to be killed`);
  }
}

/** Pods of one program, with callbacks. `onChange` gets the addresses of all pods, including terminating ones. */
export class Deployment {
  #pods = [];

  constructor({ program, flags, onServing = () => {}, onLeaving = () => {}, onChange = () => {} }) {
    Object.assign(this, { program, flags, onServing, onLeaving, onChange });
  }

  async add() {
    const pod = new Pod(this.program, this.flags);
    this.#pods.push(pod);
    await pod.process.start();
    this.onChange(this.#pods.map(({ ip }) => ip));
    await this.onServing(pod.address);
  }

  /** A rolling update with maxSurge 1 and maxUnavailable 0: each pod ends after a new one has become ready. */
  async roll(times) {
    for (const pod of [...this.#pods]) {
      await this.add();
      await this.onLeaving(pod.address);
      await pod.end(times);
      this.#pods.splice(this.#pods.indexOf(pod), 1);
      this.onChange(this.#pods.map(({ ip }) => ip));
    }
  }

  /** Kills the oldest pod without a warning, like a node that dies, and starts another one. */
  async crash() {
    const pod = this.#pods.shift();
    await pod.process.kill('SIGKILL');
    await this.onLeaving(pod.address);
    this.onChange(this.#pods.map(({ ip }) => ip));
    await this.add();
  }

  /** The sum of a metric over all pods that run now, and all labels, or those samples that `labels` matches. */
  async sum(name, labels = /(?:)/) {
    const values = await Promise.all(this.#pods.map((pod) => pod.metric(name, labels)));
    return values.reduce((sum, value) => sum + value, 0);
  }

  /** Resolves once the metric `name` of each pod is above 0, so that every pod has something to lose. */
  async allCount(name) {
    const deadline = Date.now() + BUSY_MS;
    for (const pod of this.#pods) {
      while (!((await pod.metric(name)) > 0)) {
        if (Date.now() > deadline) throw new Error(`${pod.name} has no ${name}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  async stop() {
    await Promise.all(this.#pods.map((pod) => pod.process.kill('SIGKILL')));
  }
}

/** A headless Service: `name` resolves to the addresses of all pods, by the /etc/hosts that they see. */
export function headlessService(name) {
  return {
    target: `dns:///${name}:${port}`,
    set: (ips) => writeFileSync(join(process.env.RUNNEL_CONFINED, 'hosts'),
      ['127.0.0.1 localhost', ...ips.map((ip) => `${ip} ${name}`), ''].join('\n')),
  };
}
