// Measures how many streams a page of Chromium can hold open: EventSource over HTTP/1.1 and, behind nginx, over HTTP/2,
// and WebSockets. Opens more of each, and counts those that are open when no further one opens. Prints one JSON object.
// Part of the benchmark, not a test.
//
//   node stream_limits.mjs [how many to try, 300]
import { chromium } from 'playwright-core';
import { startFleet } from '../../chaos/fleet.mjs';
import { startNginx } from '../../chaos/nginx.mjs';
import { start } from '../../chaos/readers/sse.mjs';
import { Script } from '../../chaos/script.mjs';

const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
];
const TRY = Number(process.argv[2] ?? 300);

/** Runs in the page: counts which of `count` streams from `open(i)` call `onopen`, until none has for two seconds. */
const countOpen = `async (count, open) => {
  let opened = 0;
  let last = performance.now();
  const all = Array.from({ length: count }, (_, i) => {
    const each = open(i);
    each.onopen = () => {
      opened++;
      last = performance.now();
    };
    return each;
  });
  while (opened < count && performance.now() - last < 2000) await new Promise((resolve) => setTimeout(resolve, 100));
  for (const each of all) each.close();
  return opened;
}`;

async function count(context, url, open) {
  const page = await context.newPage();
  await page.goto(url);
  const opened = await page.evaluate(`(${countOpen})(${TRY}, ${open})`);
  await page.close();
  return opened;
}

const fleet = await startFleet({ bridges: 1 });
const nginx = await startNginx({ sse: fleet.sse[0], ws: fleet.ws[0] });
const executablePath = process.env.RUNNEL_CHROMIUM ?? '/usr/bin/chromium';
const browser = await chromium.launch({ executablePath, args: FLAGS });
try {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  // One generation that never ends, for all streams.
  const id = await start(fleet.sse[0].url,
    new Script({ seed: 1, tokens: 100, pace: 100, stallAt: 3, key: 'stream-limits' }), { idleMs: 60_000 });
  const source = `(i) => new EventSource('/v1/generations/${id}/events?reader=' + i)`;
  console.log(JSON.stringify({
    tried: TRY,
    http1: await count(context, fleet.sse[0].url, source),
    http2: await count(context, nginx.at.http2.url, source),
    websocket: await count(context, fleet.sse[0].url, `() => new WebSocket('${fleet.ws[0].url}', 'runnel.v1')`),
  }));
} finally {
  await browser.close();
  await nginx.stop();
  await fleet.stop();
}
