// Attacks on the WebSocket bridge. The rules of RFC 6455 for frames are tested in ws_rfc6455.test.mjs.
import assert from 'node:assert/strict';
import { WsConnection } from '../chaos/readers/ws.mjs';
import { Script } from '../chaos/script.mjs';
import { AUTHORIZATION, KEYS, suite } from './arena.mjs';
import { unfinishedMessages } from './bridge_attacks.mjs';
import { exchange, faultsOf } from './exchanges.mjs';
import { Connection, SLACK, until } from './raw.mjs';
import { hostileRequests } from './requests.mjs';
import { UPGRADE, closeCode, framesOf, handshake, open, wsFrame } from './ws_raw.mjs';

const MIB = 1 << 20;
const HEADER_S = 3;

/** The messages that a connection has received. */
const messages = (connection) => framesOf(connection).filter(({ opcode }) => opcode === 1)
  .map(({ payload }) => JSON.parse(payload));

const FLAGS = { ws: [`--header_timeout=${HEADER_S}s`, `--message_timeout=${HEADER_S}s`] };

suite('the WebSocket bridge', { flags: FLAGS }, async (attack, arena) => {
  const { address } = arena.ws;

  await attack('requests that are not HTTP', async () => {
    for (const head of [UPGRADE, UPGRADE + AUTHORIZATION]) {
      assert.deepEqual(await faultsOf(address, hostileRequests({ target: '/v1/ws', head, early: [101] })), []);
    }
  });

  await attack('a header above 64 KiB where the flag allows one', async () => {
    let bridge;
    try {
      bridge = await arena.extra('runnel-ws', ['--max_header_bytes=131072']);
    } catch (error) {
      assert.match(error.message, /max_header_bytes/);
      return;
    }
    const connection = await Connection.open(bridge.address);
    await connection.send(handshake(`A: ${'x'.repeat(70000)}\r\n`));
    await connection.wait(() => connection.received.length > 0, 5000);
    connection.destroy();
    (await open(bridge.address, '')).destroy();
  });

  await attack('an empty line before the request, and a test route', async () => {
    const [{ status }] = await exchange(address, `\r\n${handshake(AUTHORIZATION)}`);
    assert.equal(status, 101);
    const [echo] = await exchange(address, handshake(AUTHORIZATION).replace('/v1/ws', '/_test/echo'));
    assert.equal(echo.status, 404);
  });

  await attack('more than 4 KiB before auth', async () => {
    for (const bytes of [
      wsFrame(1, 'x'.repeat(5000)),
      Buffer.concat([wsFrame(1, 'x'.repeat(2000), { fin: false }), wsFrame(0, 'x'.repeat(3000), { fin: false })]),
      // Announced, but not sent.
      wsFrame(1, 'x', { length: 5000 }),
    ]) {
      const connection = await open(address, '');
      await connection.send(bytes);
      await connection.wait(() => closeCode(connection) !== undefined, 2000);
      connection.destroy();
      assert.ok([1009, 4401].includes(closeCode(connection)), `closed with ${closeCode(connection)}`);
    }
  });

  await attack('messages before auth are not parsed', async () => {
    const connection = await open(address, '');
    await connection.send(wsFrame(1, JSON.stringify({ type: 'generate', req: 'a', body: { prompt: 5 } })));
    await connection.wait(() => closeCode(connection) !== undefined, 2000);
    connection.destroy();
    assert.equal(closeCode(connection), 4401);
  });

  await attack('deadlines: silence, a slow handshake, no auth, a message without its end', async () => {
    const half = wsFrame(1, `{"type":"ping",${' '.repeat(1000)}`, { fin: false });
    const ping = wsFrame(9, 'still here');
    const idle = async (begin, rest) => {
      const connection = await Connection.open(address);
      if (begin) await connection.send(begin);
      const drip = rest ? connection.drip(rest, 300) : undefined;
      const ms = await connection.closed((HEADER_S + 12) * 1000);
      connection.destroy();
      await drip;
      return ms;
    };
    // It keeps sending `more`, so the connection is not idle; only the message is late.
    const incomplete = async (bytes, more) => {
      const connection = await open(address);
      await connection.send(bytes);
      const alive = (async () => {
        for (let i = 0; await connection.send(more(i)); i++) await connection.wait(({ ended }) => ended, 500);
      })();
      await connection.wait(() => closeCode(connection) !== undefined, (HEADER_S + 12) * 1000);
      connection.destroy();
      await alive;
      return closeCode(connection);
    };
    const long = wsFrame(1, 'x'.repeat(2000));
    const [silent, slow, noAuth, fragment, part] = await Promise.all([
      idle(), idle('GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\n', 'A: b\r\n'), idle(handshake()),
      incomplete(half, () => ping), incomplete(long.subarray(0, 1000), (i) => long.subarray(1000 + i, 1001 + i)),
    ]);
    assert.notEqual(silent, undefined, 'silence: left open');
    assert.notEqual(slow, undefined, 'a slow handshake: left open');
    assert.notEqual(noAuth, undefined, 'no auth: left open');
    assert.equal(fragment, 4408, 'a message without its last fragment');
    assert.equal(part, 4408, 'a frame without its end');
  });

  await attack('100 messages of 1 MiB, none of which ends', async () => {
    const { kib, open: left } = await unfinishedMessages(arena);
    assert.equal(left, 0, 'left open');
    // The budget is 64 MiB. The rest is for the connections themselves and memory that grown buffers leave behind.
    if (SLACK === 1) assert.ok(kib < 128 << 10, `${kib} KiB more`);
  });

  await attack('a text above 4 MiB as gap', async () => {
    const tokens = 950_000;
    const connection = await WsConnection.open(`ws://${address}/v1/ws`,
      { idleMs: 60_000, headers: { authorization: `Bearer ${KEYS.attacker}` } });
    try {
      const body = { prompt: 'x', max_tokens: tokens, metadata: {
        'scripted.tokens': String(tokens), 'scripted.tokens_per_second': '1000000', 'scripted.first_token_ms': '0' } };
      const losses = await arena.metric(arena.ws, 'runnel_link_losses_total');
      const headers = { authorization: `Bearer ${KEYS.attacker}`, 'content-type': 'application/json' };
      const started = await fetch(`http://${arena.sse.address}/v1/generations`,
        { method: 'POST', headers, body: JSON.stringify(body) });
      const { id } = await started.json();
      await until(60_000, 'the end of a long text', async () => {
        const poll = await fetch(`http://${arena.sse.address}/v1/generations/${id}?after=${tokens}`, { headers });
        return (await poll.json()).status === 'done';
      });
      // A gap whose text is too large is followed by the log from its start.
      let bytes = 0;
      let first;
      for await (const event of connection.read({ id, after: 99_999_999 })) {
        first ??= event.type;
        if (event.type === 'delta') bytes += Buffer.byteLength(event.text);
        if (event.type !== 'gap') continue;
        bytes += event.snapshot.choices.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0);
        // Nothing follows a gap with the complete text.
        if (bytes > 4 * MIB) break;
      }
      assert.equal(first, 'gap');
      assert.ok(bytes > 4 * MIB, `only ${bytes} bytes`);
      assert.equal(await arena.metric(arena.ws, 'runnel_link_losses_total'), losses, 'the Link was lost');
    } finally {
      connection.close();
    }
  });

  await attack('a message above 4 MiB where the flag allows one', async () => {
    let bridge;
    try {
      bridge = await arena.extra('runnel-ws', [`--max_message_bytes=${16 * MIB}`, `--max_body_bytes=${16 * MIB}`]);
    } catch (error) {
      assert.match(error.message, /max_(message|body)_bytes/);
      return;
    }
    const before = await arena.metric(bridge, 'runnel_link_losses_total');
    const connection = await open(bridge.address, '');
    const body = { ...new Script({ seed: 1, tokens: 1, pace: 100 }).body(), prompt: 'x'.repeat(4_300_000) };
    await connection.send(wsFrame(1, JSON.stringify({ type: 'generate', req: 'a', body })));
    const reply = await until(20_000, 'a reply', () => messages(connection).find(({ req }) => req === 'a'));
    connection.destroy();
    assert.ok(reply.type === 'started' || reply.error?.status === 413, JSON.stringify(reply).slice(0, 300));
    assert.equal(await arena.metric(bridge, 'runnel_link_losses_total'), before, 'the Link was lost');
  });

  await attack('a foreign host name, without keys', async () => {
    const bridge = await arena.extra('runnel-ws', []);
    for (const host of ['evil.example', 'localhost.evil.example']) {
      const [{ status }] = await exchange(bridge.address, handshake('', host));
      assert.ok([400, 403, 421].includes(status), `Host ${host}: status ${status}`);
    }
    for (const origin of ['http://127.0.0.1:3000', 'null']) {
      const [{ status }] = await exchange(bridge.address, handshake(`Origin: ${origin}\r\n`, bridge.address));
      assert.equal(status, 403, `Origin ${origin}`);
    }
  });
});
