// Starts, kills and restarts the three real processes on free ports of 127.0.0.1, for tests.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// runnel.js needs the global, which Node 18 does not define.
globalThis.crypto ??= (await import('node:crypto')).webcrypto;

const HOST = '127.0.0.1';
// Bounds of failures, long enough for a busy machine under a sanitizer.
const READY_MS = 90_000;
const STOP_MS = 60_000;
// The start of any sanitizer's report.
const REPORT = /Sanitizer|runtime error:/;

export async function freePorts(count) {
  const servers = await Promise.all(Array.from({ length: count }, async () => {
    const server = createServer().listen(0, HOST);
    await once(server, 'listening');
    return server;
  }));
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

async function respondsOk(url) {
  try {
    return (await fetch(url)).ok;
  } catch {
    return false;
  }
}

/** One of our processes, ready once its admin port reports it. */
export class Process {
  constructor(path, args, admin, log) {
    Object.assign(this, { path, args, admin, log });
  }

  async start() {
    const file = openSync(this.log, 'a');
    this.child = spawn(this.path, this.args, { stdio: ['ignore', file, file] });
    closeSync(file);
    this.killed = false;
    const deadline = Date.now() + READY_MS;
    // A bounded poll, because a process does not notify that it is ready.
    while (!(await respondsOk(`http://${this.admin}/readyz`))) {
      if (this.child.exitCode !== null || Date.now() > deadline) {
        throw new Error(`${this.path} did not become ready:\n${readFileSync(this.log, 'utf8')}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Resolves with [exit code, signal] once the process has ended. */
  async kill(signal = 'SIGKILL') {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return [this.child.exitCode, this.child.signalCode];
    const gone = once(this.child, 'exit');
    this.killed = signal === 'SIGKILL';
    this.child.kill(signal);
    return gone;
  }

  /** Sends SIGTERM; throws if the status is not 0 (unless a test killed the process) or a sanitizer has reported. */
  async stop() {
    const bound = setTimeout(() => this.child.kill('SIGABRT'), STOP_MS);
    const [code, signal] = await this.kill('SIGTERM');
    clearTimeout(bound);
    const log = readFileSync(this.log, 'utf8');
    if ((code === 0 || this.killed) && !REPORT.test(log)) return;
    const fault = `${this.path} ended with ${signal ?? `status ${code}`}:\n${log}`;
    // Also printed, because a test that has already failed shows only its first error.
    console.error(fault);
    throw new Error(fault);
  }
}

/** The value of a metric of a process, summed over all samples whose name and labels `labels` matches. */
export async function metricOf(process, name, labels = /(?:)/) {
  const text = await (await fetch(`http://${process.admin}/metrics`)).text();
  return text.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
    .filter((line) => labels.test(line.slice(0, line.lastIndexOf(' '))))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
}

/** Resident memory of a process in KiB. */
export function residentKb(pid) {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
}

/** CPU time that a process has used, in seconds. */
export function cpuSeconds(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ');
  return (Number(fields[13]) + Number(fields[14])) / 100;
}

/** Stops processes one after another; throws the first fault, after it has stopped all of them. */
export async function stopAll(processes) {
  const faults = [];
  for (const each of processes) await each.stop().catch((fault) => faults.push(fault));
  if (faults.length > 0) throw faults[0];
}

/**
 * Starts `replicas` of runnel-inference (scripted unless `engine` has other flags), `sseBridges` of runnel-sse, and
 * runnel-ws from RUNNEL_BIN. `bridge`: additional arguments of the bridges.
 */
export async function startRunnel({ engine = ['--engine=scripted'], replicas = 1, sseBridges = 1, bridge = [] } = {}) {
  const bin = process.env.RUNNEL_BIN;
  assert.ok(bin, 'RUNNEL_BIN must name the folder of the binaries');
  const logs = mkdtempSync(join(tmpdir(), 'runnel-e2e-'));
  const [grpc, sse, ws, ...admin] = (await freePorts(6)).map((port) => `${HOST}:${port}`);
  const more = (await freePorts(2 * (replicas - 1))).map((port) => `${HOST}:${port}`);
  const services = [grpc, ...more.slice(0, replicas - 1)];
  const moreSse = (await freePorts(2 * (sseBridges - 1))).map((port) => `${HOST}:${port}`);
  const sseAddresses = [sse, ...moreSse.slice(0, sseBridges - 1)];
  // Short, so that a test that leaves streams open does not wait for them.
  const make = (name, adminAddress, args) => new Process(join(bin, name),
    [`--admin_listen=${adminAddress}`, '--drain_timeout=3s', ...args], adminAddress,
    join(logs, `${name}-${adminAddress.split(':')[1]}.log`));
  const processes = {
    inference: make('runnel-inference', admin[0], [`--listen=${grpc}`, ...engine]),
    ...Object.fromEntries(services.slice(1).map((address, i) => [`inference${i + 2}`,
      make('runnel-inference', more[replicas - 1 + i], [`--listen=${address}`, ...engine])])),
    ...Object.fromEntries(sseAddresses.map((address, i) => [i === 0 ? 'sse' : `sse${i + 1}`,
      make('runnel-sse', i === 0 ? admin[1] : moreSse[sseBridges - 2 + i],
        [`--listen=${address}`, `--inference=${services}`, `--websocket_url=ws://${ws}/v1/ws`, ...bridge])])),
    ws: make('runnel-ws', admin[2],
      [`--listen=${ws}`, `--inference=${services}`, `--allowed_origins=http://${sse}`, ...bridge]),
  };
  for (const each of Object.values(processes)) await each.start();
  return {
    ...processes,
    grpc,
    url: `http://${sse}`,
    urls: sseAddresses.map((address) => `http://${address}`),
    wsUrl: `ws://${ws}/v1/ws`,
    logs,
    metric: metricOf,
    stop: () => stopAll(Object.values(processes).reverse()),
  };
}
