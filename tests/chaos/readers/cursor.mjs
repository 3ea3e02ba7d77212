/** The cursor of a reader, as text transports write it: `after`, or `after.epoch` once a takeover has begun an epoch. */
export const placeOf = (after, epoch = 0) => (epoch > 0 ? `${after}.${epoch}` : String(after));

/** The same with its generation: an event id of SSE. */
export const cursorOf = (id, after, epoch) => `${id}:${placeOf(after, epoch)}`;
