// A page over HTTP/2 behind nginx, with the documented settings: the limit of six connections per host does not apply.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import test from 'node:test';
import { chromium } from 'playwright-core';
import { startFleet } from '../../chaos/fleet.mjs';
import { startNginx } from '../../chaos/nginx.mjs';
import { start } from '../../chaos/readers/sse.mjs';
import { Script } from '../../chaos/script.mjs';

const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
];
const MANY = 20;

const skip = !existsSync('/usr/sbin/nginx') && 'nginx was not found';

test(`http2: a page holds ${MANY} live EventSources`, { skip }, async (t) => {
  const fleet = await startFleet({ bridges: 1 });
  const nginx = await startNginx({ sse: fleet.sse[0], ws: fleet.ws[0] });
  t.after(async () => {
    await nginx.stop();
    await fleet.stop();
  });
  const executablePath = process.env.RUNNEL_CHROMIUM ?? '/usr/bin/chromium';
  const browser = await chromium.launch({ executablePath, args: FLAGS });
  t.after(() => browser.close());
  const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
  await page.goto(nginx.at.http2.url);
  // None of them ends: each sends three tokens and then stalls.
  const ids = await Promise.all(Array.from({ length: MANY }, (_, i) => start(fleet.sse[0].url,
    new Script({ seed: i + 1, tokens: 100, pace: 100, stallAt: 3, key: `http2-${i}` }), { idleMs: 30_000 })));
  const open = await page.evaluate(async (all) => {
    const sources = all.map((id) => new EventSource(`/v1/generations/${id}/events`));
    await Promise.all(sources.map((source) => new Promise((resolve) => {
      let deltas = 0;
      source.addEventListener('delta', ({ data }) => {
        const { first_seq: first, seq } = JSON.parse(data);
        deltas += seq - (first ?? seq) + 1;
        if (deltas === 3) resolve();
      });
    })));
    return sources.filter(({ readyState }) => readyState === EventSource.OPEN).length;
  }, ids);
  assert.equal(open, MANY);
  assert.ok((await fleet.metric(fleet.sse[0], 'runnel_streams_active')) >= MANY);
});
