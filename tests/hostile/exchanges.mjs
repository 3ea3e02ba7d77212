// Sends bytes to an HTTP port and reads the responses.
import { Connection } from './raw.mjs';

const LINGERED = 64 << 10;

/** Sends one row; resolves with a fault or undefined. It must get one response with a status in `want`, then the end. */
async function faultOf(address, { name, bytes, want }) {
  const connection = await Connection.open(address);
  try {
    // Not awaited: the port need not read all of it.
    connection.send(bytes);
    const closed = await connection.closed(5000);
    const statuses = connection.responses().map(({ status }) => status);
    if (closed === undefined) return `${name}: left open after ${statuses.join(', ') || 'no response'}`;
    // A port reads only some bytes of a rejected request; after more bytes, its reset may overtake the response.
    if (statuses.length === 0 && bytes.length > LINGERED) return undefined;
    if (statuses.length !== 1 || !want.includes(statuses[0])) {
      return `${name}: status ${statuses.join(', ') || 'none'}, expected one of ${want.join(', ')}`;
    }
    return undefined;
  } catch (error) {
    return `${name}: ${error.message}`;
  } finally {
    connection.destroy();
  }
}

/** Sends rows of requests.mjs at the same time, each on a separate connection. Resolves with the faults. */
export async function faultsOf(address, rows) {
  return (await Promise.all(rows.map((row) => faultOf(address, row)))).filter(Boolean);
}

/** Sends `bytes` and resolves with the responses once there are `count` of them, or at the end of the connection. */
export async function exchange(address, bytes, count = 1, ms = 5000) {
  const connection = await Connection.open(address);
  try {
    await connection.send(bytes);
    await connection.wait(() => connection.responses().length >= count, ms);
    return connection.responses();
  } finally {
    connection.destroy();
  }
}
