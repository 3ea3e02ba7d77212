// Attacks on the admin ports of all three programs, while probes must get a response within a second.
import assert from 'node:assert/strict';
import { suite } from './arena.mjs';
import { probesUnderSlowClients, takesNoMemory } from './admin_attacks.mjs';
import { exchange, faultsOf } from './exchanges.mjs';
import { Connection, SLACK } from './raw.mjs';
import { REBOUND_HOSTS, hostileRequests } from './requests.mjs';

// More than the time that the admin port allows for a request.
const DEADLINE_MS = 8000;

const get = (path, host, lines = '') => `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n${lines}\r\n`;

suite('the admin ports', {}, async (attack, arena) => {
  const programs = Object.entries({ inference: arena.inference, sse: arena.sse, ws: arena.ws });

  for (const [name, { admin }] of programs) {
    await attack(`${name}: requests that are not HTTP`, async () => {
      assert.deepEqual(await faultsOf(admin, hostileRequests({ target: '/livez' })), []);
    });

    await attack(`${name}: foreign host names, HEAD, unknown paths and methods`, async () => {
      const statusOf = async (bytes) => (await exchange(admin, bytes))[0]?.status;
      for (const host of REBOUND_HOSTS) {
        const status = await statusOf(get('/metrics', host));
        assert.ok([400, 403, 421].includes(status), `Host ${host}: status ${status}`);
      }
      assert.equal(await statusOf(get('/metrics', admin)), 200);
      assert.equal(await statusOf(`\r\n${get('/livez', admin)}`), 200);
      assert.equal(await statusOf(get('/nothing', admin)), 404);
      const head = await Connection.open(admin);
      await head.send(`HEAD /livez HTTP/1.1\r\nHost: ${admin}\r\nConnection: close\r\n\r\n`);
      assert.notEqual(await head.closed(5000), undefined);
      assert.match(head.received.toString(), /^HTTP\/1\.1 200 [^]*\r\n\r\n$/);
    });
  }

  await attack('four silent connections, four that send a line a second and eight scrapers that stay connected', async () => {
    const [silent, slow, scrapers] = [[], [], []];
    for (const [, { admin }] of programs) {
      for (let i = 0; i < 16; i++) {
        const connection = await Connection.open(admin);
        if (i >= 8) await connection.send(get('/metrics', admin));
        (i < 4 ? silent : i < 8 ? slow : scrapers).push(connection);
      }
    }
    for (const connection of slow) await connection.send('GET /livez HTTP/1.1\r\n');
    const drips = slow.map((connection) => connection.drip('X: y\r\n', 500));
    const closed = await Promise.all([...silent, ...slow].map((connection) => connection.closed(DEADLINE_MS)));
    await Promise.all(drips);
    // A scraper sends its next request within minutes, on the same connection.
    const scraped = scrapers.filter((connection) => connection.responses()[0]?.status === 200 && !connection.ended);
    for (const connection of [...silent, ...slow, ...scrapers]) connection.destroy();
    assert.equal(closed.filter((ms) => ms === undefined).length, 0, 'left open');
    assert.equal(scraped.length, scrapers.length);
  });

  await attack('200 connections that send a byte a second, and ten scrapers', async () => {
    const figures = await probesUnderSlowClients(arena, { ms: 4000 });
    for (const { program, kib } of figures) {
      if (SLACK === 1) assert.ok(kib < 16 << 10, `${program}: ${kib} KiB more`);
    }
  });

  await attack('header lines, a line, a chunked body and a request line without end', async () => {
    const figures = await takesNoMemory(arena, { bytes: 32 << 20 });
    for (const { program, attack: name, kib, taken } of figures) {
      assert.ok(taken < 24 << 20, `${program}, ${name}: took ${taken} bytes`);
      if (SLACK === 1) assert.ok(kib < 8 << 10, `${program}, ${name}: ${kib} KiB more`);
    }
  });
});
