// Runs the tests of the page against the real processes: RUNNEL_BIN=build/release/bin node run.mjs
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { startRunnel } from '../processes.mjs';

const runnel = await startRunnel();
const names = ['page', 'kill', 'replica_kill', 'survive', 'markdown', 'http2'];
const tests = spawn(process.execPath, ['--test', ...names.map((name) => `${name}.test.mjs`)], {
  cwd: import.meta.dirname ?? new URL('.', import.meta.url).pathname,
  env: { ...process.env, RUNNEL_URL: runnel.url },
  stdio: 'inherit',
});
const [code] = await once(tests, 'exit');
await runnel.stop();
process.exit(code ?? 1);
