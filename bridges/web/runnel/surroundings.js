// The state of the page as the browser reports it: offline, hidden, frozen, in the back/forward cache.

// A tab that was hidden for less has lost no connection and no timer.
const LONG_HIDDEN_MS = 10_000;

/**
 * Watches a window until stop(). The handlers are onOffline; onOnline; onSleep, when the page may soon stop running;
 * onWake, when it runs again after a pause; onStored and onRestored, when it enters and leaves the back/forward cache,
 * which does not accept pages with an open connection. Outside browsers, no handler is ever called.
 */
export class Surroundings {
  #window;
  #clock;
  #stops = [];
  #hiddenAt = null;
  /** True between onStored and onRestored. */
  stored = false;

  constructor(window, clock, handlers) {
    this.#window = window;
    this.#clock = clock;
    const { document } = window;
    this.#listen(window, 'offline', handlers.onOffline);
    this.#listen(window, 'online', handlers.onOnline);
    this.#listen(document, 'freeze', handlers.onSleep);
    this.#listen(document, 'resume', handlers.onWake);
    this.#listen(document, 'visibilitychange', () => this.#shown(handlers));
    this.#listen(window, 'pagehide', ({ persisted }) => {
      this.stored = persisted;
      if (persisted) handlers.onStored();
    });
    this.#listen(window, 'pageshow', () => {
      if (!this.stored) return;
      this.stored = false;
      handlers.onRestored();
    });
  }

  get offline() {
    return this.#window.navigator?.onLine === false;
  }

  stop() {
    for (const stop of this.#stops.splice(0)) stop();
  }

  #shown({ onSleep, onWake }) {
    if (this.#window.document.visibilityState === 'hidden') {
      this.#hiddenAt = this.#clock.now();
      return onSleep();
    }
    const long = this.#hiddenAt !== null && this.#clock.now() - this.#hiddenAt >= LONG_HIDDEN_MS;
    this.#hiddenAt = null;
    if (long) onWake();
    return undefined;
  }

  #listen(target, type, handler) {
    if (!target?.addEventListener) return;
    target.addEventListener(type, handler);
    this.#stops.push(() => target.removeEventListener(type, handler));
  }
}
