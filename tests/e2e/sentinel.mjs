// A real Sentinel that watches a store of store.mjs, as the server program in its other mode.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Store } from './store.mjs';

const HOST = '127.0.0.1';

export class Sentinel extends Store {
  /** `store`: the present master, whose program is used. `quorum`: Sentinels that must agree that it is down. */
  static async start({ store, name = 'main', quorum = 2, downAfterMs = 500, failoverTimeoutMs = 2000 }) {
    const sentinel = await Sentinel.prepare(store.kind);
    sentinel.name = name;
    const config = join(sentinel.folder, 'sentinel.conf');
    writeFileSync(config, [
      `port ${sentinel.port}`, `bind ${HOST}`, `dir ${sentinel.folder}`, `sentinel monitor ${name} ${HOST} ${store.port} ${quorum}`,
      `sentinel down-after-milliseconds ${name} ${downAfterMs}`, `sentinel failover-timeout ${name} ${failoverTimeoutMs}`, ''].join('\n'));
    sentinel.args = [config, '--sentinel'];
    await sentinel.start();
    return sentinel;
  }

  /** The port of the server that it takes for the master. */
  async masterPort() {
    const [, port] = await this.command('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', this.name);
    return Number(port);
  }

  /** What it knows of the master, as an object. */
  async master() {
    const fields = await this.command('SENTINEL', 'MASTER', this.name);
    return Object.fromEntries(Array.from({ length: fields.length / 2 }, (_, i) => fields.slice(2 * i, 2 * i + 2)));
  }

  /** Makes the follower the master. False if it sees no follower now that could be. */
  async failOver() {
    try {
      return (await this.command('SENTINEL', 'FAILOVER', this.name)) === 'OK';
    } catch (error) {
      if (!error.message.startsWith('NOGOODSLAVE')) throw error;
      return false;
    }
  }

  /** Whether it could fail over now: it knows `replicas` replicas and `others` other Sentinels, and nothing is going on. */
  async ready({ replicas = 1, others = 2 } = {}) {
    const { flags, 'num-slaves': known, 'num-other-sentinels': peers } = await this.master();
    return flags === 'master' && Number(known) >= replicas && Number(peers) >= others;
  }
}
