// Tests deploy/local/run.sh with programs that are already built: several replicas that share a log in Redis. One that
// is killed while a response is read must be started again, and the response must go on.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { stream } from '../../bridges/web/runnel.js';
import { CheckedLog, Tally } from '../chaos/checked_log.mjs';
import { Script } from '../chaos/script.mjs';
import { freePorts, metricOf } from '../e2e/processes.mjs';

const LOCAL = new URL('../../deploy/local', import.meta.url).pathname;
const WAIT_MS = 60_000;
const NO_REDIS = spawnSync('redis-server', ['--version']).status !== 0 &&
  'redis-server is not installed: deploy/local/install.sh --with-tests';

/** A tree in which run.sh finds the programs of RUNNEL_BIN, and installs and builds nothing. */
function makeTree(t) {
  const tree = mkdtempSync(join(tmpdir(), 'runnel-run-'));
  t.after(() => rmSync(tree, { recursive: true }));
  cpSync(LOCAL, join(tree, 'deploy/local'), { recursive: true });
  mkdirSync(join(tree, 'build/release'), { recursive: true });
  symlinkSync(process.env.RUNNEL_BIN, join(tree, 'build/release/bin'));
  mkdirSync(join(tree, 'bin'));
  for (const program of ['deploy/local/install.sh', 'bin/cmake']) {
    writeFileSync(join(tree, program), '#!/bin/sh\n', { mode: 0o755 });
  }
  return tree;
}

class RunScript {
  output = '';

  constructor(t, args) {
    const tree = makeTree(t);
    const env = { ...process.env, PATH: `${join(tree, 'bin')}:${process.env.PATH}` };
    this.child = spawn(join(tree, 'deploy/local/run.sh'), args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const pipe of [this.child.stdout, this.child.stderr]) {
      pipe.setEncoding('utf8').on('data', (text) => (this.output += text));
    }
    this.ended = once(this.child, 'close');
    t.after(() => this.stop());
  }

  /** Resolves with the match of `pattern` in the output; throws if it ends before or prints nothing of the kind. */
  async prints(pattern) {
    const deadline = Date.now() + WAIT_MS;
    for (;;) {
      const match = pattern.exec(this.output);
      if (match) return match;
      if (this.child.exitCode !== null || Date.now() > deadline) throw new Error(`no ${pattern} in:\n${this.output}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Resolves with the exit status after SIGTERM. */
  async stop() {
    if (this.child.exitCode === null) this.child.kill('SIGTERM');
    const [status] = await this.ended;
    return status;
  }
}

async function portFlags() {
  const names = ['grpc', 'sse', 'ws', 'inference-admin', 'sse-admin', 'ws-admin'];
  const ports = await freePorts(names.length);
  return { url: `http://127.0.0.1:${ports[1]}`, flags: names.map((name, i) => `--${name}-port=${ports[i]}`) };
}

test('wrong arguments are refused before anything is installed', (t) => {
  const script = join(makeTree(t), 'deploy/local/run.sh');
  for (const [args, expected] of [
    [['--replicas=0'], /--replicas is '0': expected a number from 1 to 9/],
    [['--replicas', 'two'], /--replicas is 'two'/],
    [['--log=disk'], /--log is 'disk': expected memory or redis/],
    [['--log'], /--log needs a value/],
    [['--redis-port=1'], /unknown argument/],
  ]) {
    const { status, stderr } = spawnSync(script, args, { encoding: 'utf8' });
    assert.equal(status, 1, args.join(' '));
    assert.match(stderr, expected);
  }
});

test('a killed replica is started again, and the response goes on', { skip: NO_REDIS }, async (t) => {
  const { url, flags } = await portFlags();
  const run = new RunScript(t, ['--engine=scripted', '--replicas=2', '--log=redis', ...flags]);
  await run.prints(/Press Ctrl-C to stop it/);
  const replicas = [];
  for (const name of ['inference-1', 'inference-2']) {
    const [, admin] = await run.prints(new RegExp(`${name} is ready \\(admin port (\\d+)`));
    const [, pid] = await run.prints(new RegExp(`kill -9 (\\d+) +# ${name}`));
    replicas.push({ name, pid: Number(pid), admin: `127.0.0.1:${admin}` });
  }

  const tally = new Tally();
  const script = new Script({ seed: 1, tokens: 60, pace: 20 });
  const log = new CheckedLog(script, tally);
  const response = stream(script.body(), { baseUrl: url, transport: 'sse' });
  const on = log.connection('sse');
  let killed;
  for await (const event of response) {
    log.apply(event, on);
    if (killed || event.seq < 10) continue;
    const running = await Promise.all(replicas.map((each) => metricOf(each, 'runnel_requests_running')));
    killed = replicas[running.indexOf(1)];
    process.kill(killed.pid, 'SIGKILL');
  }
  assert.deepEqual(tally.firstFaults, []);
  assert.equal((await response.result).verified, true);

  await run.prints(new RegExp(`${killed.name} ended with status 137; starting it again`));
  const [, pid] = await run.prints(/to kill it: kill -9 (\d+)/);
  assert.notEqual(Number(pid), killed.pid);
  assert.equal(await run.stop(), 0);
});
