// The process of switch_proxy.mjs: TCP routes whose state its parent changes by messages.
import { once } from 'node:events';
import net from 'node:net';

const HOST = '127.0.0.1';
const REOPEN_MS = 10_000;
const routes = new Map();

/** One direction of a connection: bytes wait while the route is dark, and for its delay. */
class Pipe {
  #held = [];
  #timer;

  constructor(route, from, to) {
    Object.assign(this, { route, from, to });
    from.on('data', (bytes) => this.#take({ bytes }));
    from.on('end', () => this.#take({}));
    to.on('drain', () => this.from.resume());
  }

  #take(item) {
    if (this.#held.length === 0 && !this.route.dark && this.route.delayMs === 0) return this.#pass(item);
    this.#held.push({ ...item, due: performance.now() + this.route.delayMs });
    // The sender's window fills as with a network that delivers nothing.
    if (this.route.dark) this.from.pause();
    this.flush();
  }

  #pass({ bytes }) {
    if (bytes === undefined) return this.to.end();
    if (!this.to.write(bytes)) this.from.pause();
  }

  /** Passes on what is due. */
  flush() {
    clearTimeout(this.#timer);
    if (this.route.dark) return;
    while (this.#held.length > 0 && this.#held[0].due <= performance.now()) this.#pass(this.#held.shift());
    if (this.#held.length > 0) this.#timer = setTimeout(() => this.flush(), Math.max(1, this.#held[0].due - performance.now()));
    else if (!this.to.writableNeedDrain) this.from.resume();
  }

  stop() {
    clearTimeout(this.#timer);
  }
}

class Route {
  dark = false;
  delayMs = 0;
  refuses = false;
  connections = new Set();

  constructor(listen, target) {
    Object.assign(this, { listen, target });
  }

  /** While the route refuses, the system may lend its port to somebody's connection, so another attempt can succeed. */
  async open() {
    const deadline = performance.now() + REOPEN_MS;
    for (;;) {
      this.server = net.createServer({ allowHalfOpen: true, noDelay: true }, (client) => this.#join(client));
      this.server.listen(this.listen, HOST);
      const error = await once(this.server, 'listening').then(() => undefined, (failure) => failure);
      if (error === undefined) return;
      if (error.code !== 'EADDRINUSE' || performance.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  #join(client) {
    const server = net.connect({ port: this.target, host: HOST, allowHalfOpen: true, noDelay: true });
    const pipes = [new Pipe(this, client, server), new Pipe(this, server, client)];
    const connection = { pipes, reset: () => [client, server].forEach((socket) => socket.resetAndDestroy()) };
    this.connections.add(connection);
    const ended = () => {
      if (!this.connections.delete(connection)) return;
      pipes.forEach((pipe) => pipe.stop());
      connection.reset();
    };
    for (const socket of [client, server]) socket.on('error', ended);
    let open = 2;
    for (const socket of [client, server]) socket.on('close', () => (--open === 0 ? ended() : undefined));
  }

  async set({ dark = false, refuses = false, delayMs = 0, target = this.target }) {
    const moved = target !== this.target;
    Object.assign(this, { dark, delayMs, target });
    if (refuses || moved) for (const { reset } of [...this.connections]) reset();
    if (refuses && !this.refuses) await new Promise((resolve) => this.server.close(resolve));
    if (!refuses && this.refuses) await this.open();
    this.refuses = refuses;
    for (const { pipes } of this.connections) pipes.forEach((pipe) => pipe.flush());
  }
}

const HANDLERS = {
  add: async ({ name, listen, target }) => {
    const route = new Route(listen, target);
    routes.set(name, route);
    await route.open();
  },
  set: async ({ names, state }) => {
    for (const name of names) await routes.get(name).set(state);
  },
};

process.on('message', async ({ id, type, ...what }) => {
  const error = await HANDLERS[type](what).then(() => undefined, ({ message }) => message);
  if (process.connected) process.send({ id, error });
});
process.on('disconnect', () => process.exit(0));
