// Attacks on the SSE bridge.
import assert from 'node:assert/strict';
import { AUTHORIZATION, suite } from './arena.mjs';
import { unfinishedBodies } from './bridge_attacks.mjs';
import { exchange, faultsOf } from './exchanges.mjs';
import { Connection, SLACK, until } from './raw.mjs';
import { REBOUND_HOSTS, hostileRequests } from './requests.mjs';

const MIB = 1 << 20;
// Short, so that the suite can wait for them.
const HEADER_S = 3;
const IDLE_S = 3;

const BODY = JSON.stringify({ prompt: 'go', max_tokens: 1 });

/** A POST as bytes; `lines`: additional header lines. */
function post(path, body, { lines = '', host = '127.0.0.1', key = AUTHORIZATION, version = '1.1' } = {}) {
  return `POST ${path} HTTP/${version}\r\nHost: ${host}\r\n${key}Content-Type: application/json\r\n${lines}` +
    `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

const get = (path, lines = AUTHORIZATION, host = '127.0.0.1') => `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n${lines}\r\n`;

const statusOf = async (...args) => (await exchange(...args))[0]?.status;

suite('the SSE bridge', { flags: { sse: [`--header_timeout=${HEADER_S}s`, `--idle_timeout=${IDLE_S}s`] } },
  async (attack, arena) => {
    const { address } = arena.sse;

    for (const [name, more] of Object.entries({
      'without a key': { early: [401] }, 'with a key': { head: AUTHORIZATION },
    })) {
      await attack(`requests that are not HTTP, ${name}`, async () => {
        assert.deepEqual(await faultsOf(address, hostileRequests({ target: '/v1/models', ...more })), []);
      });
    }

    await attack('a header above 64 KiB where the flag allows one', async () => {
      let bridge;
      try {
        bridge = await arena.extra('runnel-sse', ['--max_header_bytes=131072']);
      } catch (error) {
        assert.match(error.message, /max_header_bytes/);
        return;
      }
      const connection = await Connection.open(bridge.address);
      await connection.send(get('/v1/models', `A: ${'x'.repeat(70000)}\r\n`));
      await connection.wait(() => connection.responses().length > 0, 5000);
      connection.destroy();
      assert.equal(await statusOf(bridge.address, get('/v1/models', '')), 200);
    });

    await attack('100 bodies of 1 MiB without a key', async () => {
      const { kib, open, statuses } = await unfinishedBodies(arena, { key: '' });
      assert.equal(open, 0, 'left open');
      assert.deepEqual([...statuses], [401]);
      if (SLACK === 1) assert.ok(kib < 16 << 10, `${kib} KiB more`);
    });

    await attack('100 bodies with a key, none of which ends', async () => {
      const { kib, open, statuses } = await unfinishedBodies(arena, {});
      assert.equal(open, 0, 'left open');
      for (const status of statuses) assert.ok([408, 413, 429, 503].includes(status), `status ${status}`);
      // By default all unfinished bytes together may be 64 MiB, so some are rejected immediately.
      assert.ok(statuses.has(503) || statuses.has(429), `statuses ${[...statuses]}: there is no common limit`);
      if (SLACK === 1) assert.ok(kib < 96 << 10, `${kib} KiB more`);
    });

    await attack('deadlines: silence, a slow header, a slow body, trickled chunks, an idle connection', async () => {
      const chunked = 'Transfer-Encoding: chunked\r\n';
      const slow = {
        silence: ['', ''],
        'a slow header': ['GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n', 'A: b\r\n'],
        'a slow body': [post('/v1/generations', 'x'.repeat(1000)).slice(0, -1000), '{"prompt":"'],
        'slow chunks': [`POST /v1/generations HTTP/1.1\r\nHost: 127.0.0.1\r\n${AUTHORIZATION}${chunked}\r\n`, '1\r\na\r\n'],
      };
      const closings = await Promise.all(Object.entries(slow).map(async ([name, [begin, rest]]) => {
        const connection = await Connection.open(address);
        if (begin) await connection.send(begin);
        const drip = rest ? connection.drip(rest, 300) : undefined;
        const ms = await connection.closed((HEADER_S + 3) * 1000);
        connection.destroy();
        await drip;
        return ms === undefined ? `${name}: left open` : undefined;
      }));
      const idle = await Connection.open(address);
      await idle.send(get('/v1/models'));
      await idle.wait(() => idle.responses().length === 1, 2000);
      const idleMs = await idle.closed((IDLE_S + 3) * 1000);
      idle.destroy();
      assert.deepEqual(closings.filter(Boolean), []);
      assert.ok(idleMs !== undefined, 'an idle connection was left open');
    });

    await attack('codings and characters that must not be ignored', async () => {
      const gzip = { lines: 'Content-Encoding: gzip\r\n' };
      for (const [path, more] of Object.entries({
        '/v1/generations': { prompt: 'hi' },
        '/v1/completions': { prompt: 'hi' },
        '/v1/chat/completions': { messages: [{ role: 'user', content: 'hi' }] },
        '/v1/responses': { input: 'hi' },
      })) {
        const body = JSON.stringify({ model: 'scripted', ...more });
        assert.ok([200, 201].includes(await statusOf(address, post(path, body), 1, 20_000)), path);
        assert.equal(await statusOf(address, post(path, `${body}\x00junk`)), 400, `${path} and a NUL`);
        assert.equal(await statusOf(address, post(path, body, gzip)), 415, `${path} and gzip`);
      }
    });

    await attack('tools that are too many, too large or too deep, and names of any bytes', async () => {
      const schema = 'tools[0].function.parameters';
      const tools = (...all) => ({ tools: all.map(([name, parameters]) => ({ type: 'function', function: { name, parameters } })) });
      const nested = (depth) => JSON.parse(`${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`);
      const called = (id, name) => ({ messages: [{ role: 'assistant', content: null,
        tool_calls: [{ id, type: 'function', function: { name, arguments: '{' } }] }] });
      const rows = [
        ['10,000 tools', tools(...Array.from({ length: 10_000 }, (_, i) => [`f${i}`])), 400, 'tools'],
        ['a schema of 1 MB', tools(['f', { a: 'x'.repeat(1_000_000) }]), 400, schema],
        ['a schema of 1 MiB', tools(['f', { a: 'x'.repeat(MIB) }]), 413],
        ['a deep schema', tools(['f', nested(65)]), 400, schema],
        ['a very deep schema', tools(['f', nested(1000)]), 400, null],
        ['a NUL in a name', tools(['f\0']), 400, 'tools[0].function.name'],
        ['a control character in an id', called('\u001b[2J', 'f'), 400, 'messages[0].tool_calls[0].id'],
        ['a long name', called('c', 'n'.repeat(257)), 400, 'messages[0].tool_calls[0].function.name'],
        ['10,000 calls', { messages: [{ role: 'assistant', tool_calls: Array(10_000).fill({ id: 'c', function: { name: 'f' } }) }] },
          400, 'messages[0].tool_calls'],
        ['half of a surrogate', tools(['\ud800']), 400, null],
        ['at the limit', tools(['f', nested(64)], ['n'.repeat(256)]), 200],
      ];
      for (const path of ['/v1/generations', '/v1/chat/completions']) {
        for (const [what, more, expected, param] of rows) {
          const json = JSON.stringify({ model: 'scripted', messages: [{ role: 'user', content: 'hi' }], max_tokens: 1, ...more });
          // The parser ignores a byte order mark.
          for (const body of [json, `\ufeff${json}`]) {
            const [response] = await exchange(address, Buffer.from(post(path, body)), 1, 20_000);
            const status = response?.status === 201 ? 200 : response?.status;
            assert.equal(status, expected, `${path}, ${what}`);
            if (expected === 400) assert.equal(JSON.parse(response.body).error.param, param, `${path}, ${what}`);
          }
        }
      }
    });

    await attack('unusual but legal requests', async () => {
      assert.equal(await statusOf(address, `\r\n\r\n${get('/v1/models')}`), 200, 'an empty line before a request');
      const two = await exchange(address, `${post('/v1/generations', BODY)}\r\n${get('/v1/models')}`, 2);
      assert.deepEqual(two.map(({ status }) => status), [201, 200], 'an empty line after a body');
      const old = post('/v1/generations', BODY, { version: '1.0', lines: 'Expect: 100-continue\r\n' });
      assert.equal(await statusOf(address, old), 201, 'Expect in HTTP/1.0');
      const asking = await Connection.open(address);
      const expecting = post('/v1/generations', BODY, { lines: 'Expect: 100-continue\r\n' });
      await asking.send(expecting.slice(0, -BODY.length));
      await asking.wait(() => asking.responses().length >= 1, 5000);
      await asking.send(BODY);
      await asking.wait(() => asking.responses().length >= 2, 5000);
      asking.destroy();
      assert.deepEqual(asking.responses().map(({ status }) => status), [100, 201], 'Expect in HTTP/1.1');
      assert.ok([404, 405, 501].includes(await statusOf(address, 'CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n')), 'CONNECT');
      assert.ok([404, 405].includes(await statusOf(address, post('/_test/echo', BODY))), 'a test route');
    });

    await attack('foreign host names and origins, without keys', async () => {
      const bridge = await arena.extra('runnel-sse', []);
      const { address: open } = bridge;
      for (const host of REBOUND_HOSTS) {
        for (const path of ['/v1/models', '/', '/config.json']) {
          const status = await statusOf(open, get(path, '', host));
          assert.ok([400, 403, 421].includes(status), `Host ${host}, ${path}: status ${status}`);
        }
      }
      assert.equal(await statusOf(open, get('/v1/models', '', open)), 200);
      for (const host of ['localhost', '[::1]', '127.0.0.1:9999']) {
        assert.equal(await statusOf(open, get('/v1/models', '', host)), 200, `Host ${host}`);
      }
      for (const origin of ['http://127.0.0.1:3000', 'null', 'http://evil.example']) {
        const status = await statusOf(open, post('/v1/generations', BODY,
          { host: open, key: '', lines: `Origin: ${origin}\r\n` }));
        assert.equal(status, 403, `Origin ${origin}`);
      }
      const status = await statusOf(open, post('/v1/generations', BODY,
        { host: open, key: '', lines: `Origin: http://${open}\r\n` }));
      assert.equal(status, 201, 'the same origin');
    });

    await attack('requests that a foreign page may send', async () => {
      const bridge = await arena.extra('runnel-sse', ['--allowed_origins=http://page.example']);
      const preflight = async (path) => {
        const lines = 'Origin: http://page.example\r\nAccess-Control-Request-Method: POST\r\n';
        const [{ headers }] = await exchange(bridge.address, get(path, lines, bridge.address).replace('GET', 'OPTIONS'));
        return headers['access-control-allow-methods'];
      };
      assert.doesNotMatch(await preflight('/v1/models'), /POST|DELETE/);
      assert.match(await preflight('/v1/generations'), /POST/);
      const [page] = await exchange(bridge.address, get('/', '', bridge.address));
      assert.equal(page.status, 200);
      assert.doesNotMatch(page.headers['content-security-policy'], /connect-src[^;]*\*/);
      assert.match(page.headers['cross-origin-resource-policy'] ?? '', /^same-/);
      const expecting = post('/v1/generations', BODY, { key: '', host: bridge.address, lines: 'Expect: magic\r\n' });
      assert.equal(await statusOf(bridge.address, expecting), 417, 'an unknown Expect');
    });

    await attack('clients that leave a byte behind and disconnect', async () => {
      const count = 40;
      const body = JSON.stringify({ model: 'scripted', messages: [{ role: 'user', content: 'go' }], max_tokens: 10,
        metadata: { 'scripted.first_token_ms': '60000' } });
      const running = () => arena.metric(arena.inference, 'runnel_requests_running');
      const all = await Promise.all(Array.from({ length: count }, () => Connection.open(address)));
      // Half of them with their request, half of them later.
      const rest = (i) => ['\r\n', get('/v1/models')][(i >> 1) % 2];
      await Promise.all(all.map((connection, i) =>
        connection.send(post('/v1/chat/completions', body) + (i % 2 ? rest(i) : ''))));
      await until(5000, `${count} generations`, async () => (await running()) >= count);
      await Promise.all(all.map((connection, i) => connection.send(i % 2 ? '' : rest(i))));
      for (const connection of all) connection.destroy();
      await until(5000, 'the end of the generations of clients that left', async () => (await running()) < count);
    });

    await attack('a text above 4 MiB as snapshot and as gap', async () => {
      const tokens = 950_000;
      const body = JSON.stringify({ prompt: 'x', max_tokens: tokens, metadata: {
        'scripted.tokens': String(tokens), 'scripted.tokens_per_second': '1000000', 'scripted.first_token_ms': '0' } });
      const [{ status, body: started }] = await exchange(address, post('/v1/generations', body));
      assert.equal(status, 201);
      const { id } = JSON.parse(started);
      const headers = { authorization: AUTHORIZATION.slice('Authorization: '.length).trim() };
      const ask = (path) => fetch(`http://${address}${path}`, { headers });
      await until(60_000, 'the end of a long text', async () =>
        (await (await ask(`/v1/generations/${id}?after=${tokens}`)).json()).status === 'done');
      const whole = await ask(`/v1/generations/${id}`);
      assert.equal(whole.status, 200, 'the snapshot');
      const snapshot = await whole.json();
      const bytes = snapshot.choices.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0);
      assert.ok(bytes > 4 * MIB, `only ${bytes} bytes`);
      const losses = await arena.metric(arena.sse, 'runnel_link_losses_total');
      // A gap whose text is too large is followed by the log from its start.
      const gap = await ask(`/v1/generations/${id}/events?after=99999999`);
      assert.equal(gap.status, 200);
      const text = await gap.text();
      assert.match(text, /^[^]{0,100}event: gap/);
      assert.ok(Buffer.byteLength(text) > bytes, `only ${Buffer.byteLength(text)} bytes`);
      assert.equal(await arena.metric(arena.sse, 'runnel_link_losses_total'), losses, 'the Link was lost');
    });

    await attack('a body above 4 MiB where the flag allows one', async () => {
      let bridge;
      try {
        bridge = await arena.extra('runnel-sse', [`--max_body_bytes=${16 * MIB}`]);
      } catch (error) {
        assert.match(error.message, /max_body_bytes/);
        return;
      }
      const before = await arena.metric(bridge, 'runnel_link_losses_total');
      const body = JSON.stringify({ prompt: 'x'.repeat(4_300_000), max_tokens: 1 });
      const status = await statusOf(bridge.address, post('/v1/generations', body, { key: '' }), 1, 20_000);
      assert.ok([201, 413].includes(status), `status ${status}`);
      assert.equal(await arena.metric(bridge, 'runnel_link_losses_total'), before, 'the Link was lost');
    });
  });
