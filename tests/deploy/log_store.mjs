// The server of a shared log as components/redis starts it, with Debian's redis-server, for pods without a cluster.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, chmodSync, copyFileSync, mkdirSync, openSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePorts } from '../e2e/processes.mjs';

const COMPONENT = new URL('../../deploy/kubernetes/components/redis/', import.meta.url).pathname;
const READY_MS = 20_000;
// A file of the read-only root that the pods of runnel-inference have.
const PASSWORD_FILE = '/etc/runnel/log-password';

function find(program) {
  try {
    return execFileSync('/bin/sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).trim();
  } catch {
    return undefined;
  }
}

const server = find('redis-server');
const cli = find('redis-cli');

/** Why there can be no store here; undefined if there can. */
export const missing = server && cli ? undefined
  : 'redis-server is not installed, so the shared log is not tested: deploy/local/install.sh --with-tests';

/** A store with the users of the component, and one more that may look at what the server has seen. */
export class LogStore {
  static async start(t) {
    const store = new LogStore();
    const folder = join(process.env.RUNNEL_CONFINED, 'redis');
    mkdirSync(folder);
    for (const file of ['redis.conf', 'users.acl', 'start.sh']) copyFileSync(join(COMPONENT, file), join(folder, file));
    appendFileSync(join(folder, 'users.acl'), 'user inspector on nopass -@all +acl +info +ping\n');
    symlinkSync(server, join(folder, 'valkey-server'));
    const password = 'a password of the tests';
    writeFileSync(join(folder, 'password'), `${password}\n`);
    const inside = join(process.env.RUNNEL_CONFINED, 'rootfs', 'inference', PASSWORD_FILE);
    writeFileSync(inside, `${password}\n`);
    chmodSync(inside, 0o644);
    const [port] = await freePorts(1);
    const log = openSync(join(folder, 'log'), 'a');
    const env = { ...process.env, PATH: `${folder}:${process.env.PATH}`, TMPDIR: folder, RUNNEL_LOG_SECRET: folder };
    const child = spawn('/bin/sh', [join(folder, 'start.sh'), '--bind', '127.0.0.1', '--port', `${port}`],
      { cwd: folder, env, stdio: ['ignore', log, log] });
    Object.assign(store, { port, child });
    t.after(() => store.stop());
    const deadline = Date.now() + READY_MS;
    // A bounded poll, because the server does not notify that it is ready.
    while (store.#ask('ping') !== 'PONG') {
      if (child.exitCode !== null || Date.now() > deadline) {
        throw new Error(`the store did not start:\n${readFileSync(join(folder, 'log'), 'utf8')}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return store;
  }

  /** The flags with which runnel-inference shares its log here. */
  get flags() {
    return [`--log=redis://127.0.0.1:${this.port}`, '--log_user=runnel', `--log_password_file=${PASSWORD_FILE}`];
  }

  /** Throws if the server refused a command of the service, which its users.acl has to allow. */
  assertNothingDenied() {
    assert.equal(this.#ask('acl', 'log'), '', 'users.acl does not allow what the service does');
  }

  /** The commands that were executed, in lower case. */
  commands() {
    const lines = this.#ask('info', 'commandstats').split('\n');
    return lines.flatMap((line) => /^cmdstat_([a-z]+)/.exec(line)?.[1] ?? []);
  }

  async stop() {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const gone = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await gone;
  }

  #ask(...command) {
    const args = ['-p', `${this.port}`, '--no-auth-warning', '--user', 'inspector', '--pass', 'none', ...command];
    try {
      return execFileSync(cli, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
    } catch {
      return undefined;
    }
  }
}
