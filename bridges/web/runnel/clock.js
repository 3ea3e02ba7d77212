// Time, which the tests replace.

export const systemClock = {
  /** Monotonic milliseconds. */
  now: () => performance.now(),
  /** Milliseconds that go on while the machine sleeps, as now() does not everywhere. They may jump. */
  wall: () => Date.now(),
  /** Returns what cancels it. */
  setTimer(callback, ms) {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
};

/** Resolves after `ms`, or as soon as `signal` is aborted. */
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
