// Starting the processes with the descriptors and flags that an operator or an init system may use.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readlinkSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { freePorts } from './processes.mjs';

const BIN = process.env.RUNNEL_BIN;
const BOUND_MS = 60_000;
const PROCESSES = [['runnel-inference', '--engine=scripted'], ['runnel-sse'], ['runnel-ws']];
const folder = mkdtempSync(join(tmpdir(), 'runnel-start-'));
const started = [];
after(() => {
  // Processes that a failed test has left.
  for (const child of started) child.kill('SIGKILL');
  rmSync(folder, { recursive: true });
});

async function waitUntil(condition, what) {
  const deadline = Date.now() + BOUND_MS;
  // A bounded poll, because a process does not notify that it is live.
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, what);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function isLive(port) {
  try {
    return (await fetch(`http://127.0.0.1:${port}/livez`)).ok;
  } catch {
    return false;
  }
}

/** Starts a program by the shell command `shell` ($0 is its path, $@ its arguments) and waits until it is live. */
async function start(shell, name, args) {
  const [port, admin] = await freePorts(2);
  const child = spawn('sh', ['-c', shell, join(BIN, name), ...args(port, admin), '--log_level=trace'],
    { stdio: ['ignore', 'pipe', 'pipe'] });
  started.push(child);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes) => { output += bytes; });
  const gone = once(child, 'exit');
  await waitUntil(async () => child.exitCode !== null || await isLive(admin), `${name} did not start`);
  assert.equal(child.exitCode, null, `${name} ended:\n${output}`);
  return {
    child,
    port,
    async stop() {
      child.kill('SIGTERM');
      assert.deepEqual(await gone, [0, null], output);
    },
  };
}

/** The output and status of a program that ends by itself. */
async function run(name, args) {
  const child = spawn(join(BIN, name), args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const bound = setTimeout(() => child.kill('SIGKILL'), BOUND_MS);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes) => { output += bytes; });
  const [status] = await once(child, 'close');
  clearTimeout(bound);
  return { status, output };
}

const onLoopback = (port, admin) => [`--listen=127.0.0.1:${port}`, `--admin_listen=127.0.0.1:${admin}`];

for (const [name, ...flags] of PROCESSES) {
  test(`${name} without standard input, output and error takes no socket for them`, async () => {
    const { child, stop } = await start('exec "$0" "$@" <&- >&- 2>&-', name, (...ports) => [...onLoopback(...ports), ...flags]);
    for (const fd of [0, 1, 2]) assert.equal(readlinkSync(`/proc/${child.pid}/fd/${fd}`), '/dev/null');
    await stop();
  });

  test(`${name} listens on every address without a host`, async () => {
    const { port, stop } = await start('exec "$0" "$@"', name,
      (own, admin) => [`--listen=:${own}`, `--admin_listen=:${admin}`, ...flags,
        ...(name === 'runnel-inference' ? [] : ['--allow_anonymous'])]);
    for (const host of ['127.0.0.1', '127.0.0.2']) {
      const socket = connect(port, host);
      await once(socket, 'connect');
      socket.destroy();
    }
    await stop();
  });

  test(`${name} reports that a port is in use`, async () => {
    const ports = [];
    const { stop } = await start('exec "$0" "$@"', name, (...own) => {
      ports.push(...own);
      return [...onLoopback(...own), ...flags];
    });
    for (const taken of [[ports[0], 0], [0, ports[1]]]) {
      const { status, output } = await run(name, [...onLoopback(...taken), ...flags, '--log_level=off']);
      assert.equal(status, 1);
      assert.match(output, /cannot listen on 127\.0\.0\.1:\d+/);
    }
    await stop();
  });
}
