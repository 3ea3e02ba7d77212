// HAProxy in the place of the way in and its Services: one origin for both bridges, whose endpoints come and go while
// it runs. What is open to one that went stays open.
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
  # Each event at once, rather than with the next.
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

  /** New connections for `backend`, sse or ws, go to `address` (ip:port) as well from now on. */
  async add(backend, address) {
    const server = `${backend}/slot${this.#free[backend].shift()}`;
    this.#slots.set(address, server);
    const [host, port] = address.split(':');
    await this.#order(`set server ${server} addr ${host} port ${port}`);
    await this.#order(`set server ${server} state ready`);
  }

  /** New requests do not go there any more; open ones are left alone. */
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
    const answer = (await this.#command(line)).trim();
    if (answer !== '' && !/changed|no need/i.test(answer)) throw new Error(`haproxy: ${line}: ${answer}`);
  }

  #command(line) {
    return new Promise((resolve, reject) => {
      let answer = '';
      const socket = createConnection(this.#socket, () => socket.end(`${line}\n`));
      socket.setEncoding('utf8').on('data', (text) => (answer += text));
      socket.on('end', () => resolve(answer)).on('error', reject);
    });
  }
}
