// The browser of the tests: the system's Chromium.
import { chromium } from 'playwright-core';

const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

/** Launches a browser that is closed when the test ends. */
export async function launch(t, options = {}) {
  const browser = await chromium.launch({
    executablePath: process.env.RUNNEL_CHROMIUM ?? '/usr/bin/chromium', args: FLAGS, ...options,
  });
  t.after(() => browser.close());
  return browser;
}
