// HAProxy in place of the ingress and its Services: one origin for both bridges, whose endpoints change while it runs.
// Open connections to a removed endpoint stay open.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';

const SLOTS = 16;
const READY_MS = 10_000;

const range = (count) => Array.from({ length: count }, (_, i) => i + 1);

const backend = (name) => `backend ${name}
  balance roundrobin
  server-template slot 1-${SLOTS} 127.0.0.1:1 disabled
`;

const config = (listen, socket) => `
global
  stats socket ${socket} level admin
defaults
  mode http
  # Forwards each event immediately instead of with the next one.
  option http-no-delay
  option http-server-close
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  retries 3
  option redispatch
frontend page
  bind ${listen}
  use_backend ws if { path /v1/ws }
  default_backend sse
${['sse', 'ws'].map(backend).join('')}`;

export class Balancer {
  #socket;
  #process;
  #slots = new Map();
  #free = { sse: range(SLOTS), ws: range(SLOTS) };

  static async start(listen, folder) {
    const balancer = new Balancer();
    balancer.url = `http://${listen}`;
    balancer.#socket = join(folder, 'haproxy.sock');
    const file = join(folder, 'haproxy.cfg');
    writeFileSync(file, config(listen, balancer.#socket));
    balancer.#process = spawn('haproxy', ['-db', '-q', '-f', file], { stdio: ['ignore', 'inherit', 'inherit'] });
    const deadline = Date.now() + READY_MS;
    while (!(await balancer.#command('show info').catch(() => ''))) {
      if (balancer.#process.exitCode !== null || Date.now() > deadline) throw new Error('haproxy did not start');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return balancer;
  }

  /** From now on, new connections for `backend`, sse or ws, may also use `address` (ip:port). */
  async add(backend, address) {
    const server = `${backend}/slot${this.#free[backend].shift()}`;
    this.#slots.set(address, server);
    const [host, port] = address.split(':');
    await this.#order(`set server ${server} addr ${host} port ${port}`);
    await this.#order(`set server ${server} state ready`);
  }

  /** Sends no new requests to `address`; open ones are not affected. */
  async remove(address) {
    const server = this.#slots.get(address);
    this.#slots.delete(address);
    await this.#order(`set server ${server} state maint`);
  }

  async stop() {
    const gone = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await gone;
  }

  async #order(line) {
    const reply = (await this.#command(line)).trim();
    if (reply !== '' && !/changed|no need/i.test(reply)) throw new Error(`haproxy: ${line}: ${reply}`);
  }

  #command(line) {
    return new Promise((resolve, reject) => {
      let reply = '';
      const socket = createConnection(this.#socket, () => socket.end(`${line}\n`));
      socket.setEncoding('utf8').on('data', (text) => (reply += text));
      socket.on('end', () => resolve(reply)).on('error', reject);
    });
  }
}
