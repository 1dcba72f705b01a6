/** Gives events their ids, and posts them in parts until each has its result. */

import { IsrfError, invalid, unreadable } from "./errors.js";
import { backOffMs, pause } from "./requests.js";
import { given, object } from "./values.js";

/**
 * @import { Event, InteractionsAnswer, PreparedEvent, Result } from "./types.js"
 * @import { Requests } from "./requests.js"
 */

const MAX_EVENTS = 1000; // of one request
export const NOT_NOW = "store_unavailable";

/**
 * Returns events as they are sent: each with an `event_id` (new where it has none), ids as text, nothing undefined.
 * Store them before you post them: then each counts once, even if it is sent several times.
 *
 * @param {readonly Event[]} events
 * @returns {PreparedEvent[]}
 */
export function prepare(events) {
  if (!Array.isArray(events)) throw invalid("events", events, "Give an array of events.");
  return Array.from(events, (event, place) => preparedEvent(event, `events[${place}]`));
}

/**
 * @param {unknown} event
 * @param {string} where
 * @returns {PreparedEvent}
 */
export function preparedEvent(event, where) {
  const { timestamp, ...fields } = object(event, where, 'Give { user_id: "…", item_id: "…", event: "view" }.');
  // A Date counts milliseconds, the service seconds.
  const seconds = timestamp instanceof Date ? timestamp.getTime() / 1000 : timestamp;
  const sent = { event_id: newId(), ...given({ ...fields, timestamp: seconds }, where) };
  return /** @type {PreparedEvent} */ (/** @type {unknown} */ (sent));
}

/**
 * @param {Requests} requests
 * @param {readonly Event[]} events
 * @param {AbortSignal | null | undefined} signal
 * @returns {Promise<InteractionsAnswer>}
 */
export async function postEvents(requests, events, signal) {
  const prepared = prepare(events);
  /** @type {(Result | null)[]} */
  const results = prepared.map(() => null);
  const end = performance.now() + requests.writes.deadlineMs;
  try {
    for (let start = 0; start < prepared.length; start += MAX_EVENTS) {
      const places = [...results.keys()].slice(start, start + MAX_EVENTS);
      await postPart(requests, prepared, results, places, end, signal);
    }
  } catch (error) {
    if (!(error instanceof IsrfError)) throw error;
    /** @param {Result | null} result */
    const done = (result) => result !== null && result.reason !== NOT_NOW;
    error.results = results;
    error.events = prepared.filter((_, place) => !done(results[place]));
    const count = results.filter(done).length;
    error.message += ` Of ${prepared.length} events ${count} were answered; error.events has the others.`;
    throw error;
  }
  const whole = /** @type {Result[]} */ (results);
  /** @param {Result["status"]} status */
  const count = (status) => whole.filter((result) => result.status === status).length;
  return { results: whole, accepted: count("accepted"), duplicates: count("duplicate"), refused: count("refused") };
}

/**
 * Posts the events of one request; sends those again that the store could not accept.
 *
 * @param {Requests} requests
 * @param {PreparedEvent[]} events
 * @param {(Result | null)[]} results
 * @param {number[]} places
 * @param {number} end
 * @param {AbortSignal | null | undefined} signal
 */
async function postPart(requests, events, results, places, end, signal) {
  const patience = requests.writes;
  let pending = places;
  for (let tried = 1; ; tried++) {
    const text = JSON.stringify({ events: pending.map((place) => events[place]) });
    const { results: part } = await requests.send("POST", "/interactions", {
      ...{ text, field: "results", patience, end, signal },
    });
    if (part.length !== pending.length || !Array.from(part).every((result) => result?.status)) {
      throw unreadable("not one result for each event");
    }
    pending.forEach((place, k) => (results[place] = { event_id: events[place].event_id, ...part[k] }));
    pending = pending.filter((place) => results[place]?.reason === NOT_NOW);
    const pauseMs = backOffMs(tried);
    if (!pending.length || tried >= patience.tries || performance.now() + pauseMs >= end) return;
    await pause(pauseMs, signal);
  }
}

/**
 * 128 random bits. crypto.randomUUID works only in secure contexts, and Node 18 has no global `crypto`; an id need not be
 * secret, only its own.
 */
export function newId() {
  const bytes = new Uint8Array(16);
  if (globalThis.crypto) crypto.getRandomValues(bytes);
  else bytes.forEach((_, place) => (bytes[place] = Math.floor(Math.random() * 256)));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
