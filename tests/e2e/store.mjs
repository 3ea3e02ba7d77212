// A real server for the shared log on a free port of 127.0.0.1: Debian's redis-server, or Valkey.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { freePorts } from './processes.mjs';
import { redisCommands } from './resp.mjs';

const READY_MS = 30_000;
const PROGRAMS = { redis: 'redis-server', valkey: 'valkey-server' };

/** The program of a kind of store; undefined if it is not installed. RUNNEL_REDIS and RUNNEL_VALKEY name another one. */
export function storeProgram(kind) {
  const named = process.env[`RUNNEL_${kind.toUpperCase()}`];
  if (named) return named;
  return (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, PROGRAMS[kind])).find((path) => existsSync(path));
}

/** One server. Keeps its data in a folder of its own, so that a restart finds what a killed one has written. */
export class Store {
  /** `appendonly`: whether it writes a log with an fsync a second, as deployments are advised to; `args`: more options. */
  static async start({ kind = 'redis', port, appendonly = true, args = [] } = {}) {
    const store = await this.prepare(kind, port);
    store.args = ['--port', store.port, '--bind', '127.0.0.1', '--dir', store.folder, '--save', '', '--appendonly', appendonly ? 'yes' : 'no',
      '--appendfsync', 'everysec', '--maxmemory-policy', 'noeviction', '--repl-diskless-sync-delay', '0', '--daemonize', 'no', ...args].map(String);
    await store.start();
    return store;
  }

  /** One that is not started yet. */
  static async prepare(kind, port) {
    const program = storeProgram(kind);
    if (program === undefined) throw new Error(`${PROGRAMS[kind]} was not found: install it, or name it in RUNNEL_${kind.toUpperCase()}`);
    const folder = mkdtempSync(join(tmpdir(), `runnel-${kind}-`));
    const store = new this();
    Object.assign(store, { kind, program, folder, port: port ?? (await freePorts(1))[0], log: join(folder, 'server.log') });
    process.on('exit', () => store.child?.kill('SIGKILL'));
    return store;
  }

  get address() {
    return `127.0.0.1:${this.port}`;
  }

  get running() {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  async start() {
    const file = openSync(this.log, 'a');
    this.child = spawn(this.program, this.args, { stdio: ['ignore', file, file] });
    closeSync(file);
    const deadline = Date.now() + READY_MS;
    // A bounded poll, because the server does not notify that it has loaded its data.
    while (!(await this.command('PING').then((reply) => reply === 'PONG', () => false))) {
      if (!this.running || Date.now() > deadline) {
        throw new Error(`${this.program} did not become ready:\n${readFileSync(this.log, 'utf8')}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Resolves once the process has ended. */
  async kill(signal = 'SIGKILL') {
    if (!this.running) return;
    const gone = once(this.child, 'exit');
    this.child.kill(signal);
    await gone;
  }

  /** Stops the process without ending it: connections stay, and nothing responds. */
  freeze() {
    this.child.kill('SIGSTOP');
  }

  thaw() {
    this.child.kill('SIGCONT');
  }

  async command(...args) {
    const [reply] = await redisCommands(this.port, [args]);
    return reply;
  }

  /** The fields of INFO as an object. */
  async info(section = 'default') {
    const text = await this.command('INFO', section);
    return Object.fromEntries(text.split('\r\n').filter((line) => line.includes(':')).map((line) => line.split(/:(.*)/).slice(0, 2)));
  }
}
