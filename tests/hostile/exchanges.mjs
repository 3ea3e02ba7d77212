// Bytes sent to a port that speaks HTTP, and the answers to them.
import { Connection } from './raw.mjs';

const LINGERED = 64 << 10;

/** Sends one row and resolves with a fault, or nothing. It must get one answer of those wanted, and then the end. */
async function faultOf(address, { name, bytes, want }) {
  const connection = await Connection.open(address);
  try {
    // Whether all of it is taken does not matter.
    connection.send(bytes);
    const closed = await connection.closed(5000);
    const statuses = connection.responses().map(({ status }) => status);
    if (closed === undefined) return `${name}: left open after ${statuses.join(', ') || 'no answer'}`;
    // One that sends more than a port reads of what it has refused may have its answer taken back by the reset.
    if (statuses.length === 0 && bytes.length > LINGERED) return undefined;
    if (statuses.length !== 1 || !want.includes(statuses[0])) {
      return `${name}: answered ${statuses.join(', ') || 'by nothing'}, want one of ${want.join(', ')}`;
    }
    return undefined;
  } catch (error) {
    return `${name}: ${error.message}`;
  } finally {
    connection.destroy();
  }
}

/** Sends rows of requests.mjs, each on a connection of its own and all at once. Resolves with what went wrong. */
export async function faultsOf(address, rows) {
  return (await Promise.all(rows.map((row) => faultOf(address, row)))).filter(Boolean);
}

/** Resolves with the answers to what is sent, once there are `count`, or the end. */
export async function answers(address, bytes, count = 1, ms = 5000) {
  const connection = await Connection.open(address);
  try {
    await connection.send(bytes);
    await connection.wait(() => connection.responses().length >= count, ms);
    return connection.responses();
  } finally {
    connection.destroy();
  }
}
