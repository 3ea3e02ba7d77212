// A TCP proxy in a process of its own, whose routes a test changes while it runs: partitions, a slow network, another
// target. The faults of fault_proxy.cc are planned from a seed instead.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

export class SwitchProxy {
  #next = 1;
  #waiting = new Map();

  /** `routes`: {name: [listening port, target port]}. */
  static async start(routes) {
    const proxy = new SwitchProxy();
    proxy.child = fork(fileURLToPath(new URL('switch_proxy_main.mjs', import.meta.url)));
    process.on('exit', () => proxy.child.kill('SIGKILL'));
    proxy.child.on('message', ({ id, error }) => {
      const { resolve, reject } = proxy.#waiting.get(id);
      proxy.#waiting.delete(id);
      error === undefined ? resolve() : reject(new Error(error));
    });
    for (const [name, [listen, target]] of Object.entries(routes)) await proxy.#ask({ type: 'add', name, listen, target });
    return proxy;
  }

  /**
   * Replaces the state of routes; what is not named has its default. `dark`: nothing is passed on until the next state,
   * then everything that has waited, as after a partition. `refuses`: connections are reset, and new ones refused.
   * `delayMs`: each byte arrives that much later. `target`: another port, which resets the connections if it differs.
   */
  set(names, state = {}) {
    return this.#ask({ type: 'set', names: [names].flat(), state });
  }

  async stop() {
    const gone = once(this.child, 'exit');
    this.child.disconnect();
    await gone;
  }

  #ask(message) {
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      this.#waiting.set(id, { resolve, reject });
      this.child.send({ ...message, id });
    });
  }
}
