// Time. Tests replace it.

export const systemClock = {
  /** Monotonic milliseconds. */
  now: () => performance.now(),
  /** Milliseconds that include the time in which the machine sleeps, which now() omits on some systems. May jump. */
  wall: () => Date.now(),
  /** Returns a function that cancels the timer. */
  setTimer(callback, ms) {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
};

/**
 * Resolves after `ms`, or as soon as `signal` is aborted.
 *
 * @returns {Promise<void>}
 */
export function pause(clock, ms, signal) {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const end = () => {
      cancelTimer();
      signal.removeEventListener('abort', end);
      resolve();
    };
    const cancelTimer = clock.setTimer(end, ms);
    signal.addEventListener('abort', end);
  });
}
