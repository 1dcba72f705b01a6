/** Sends events from a page that may be closing: a browser's key, a session of its own, no answer, no second try. */

import { invalid } from "./errors.js";
import { newId } from "./events.js";
import { given, object } from "./values.js";

/**
 * @import { BeaconEvent } from "./types.js"
 * @import { Requests } from "./requests.js"
 */

const MAX_EVENTS = 100; // of one beacon
const MAX_BYTES = 60_000; // a browser sends 64 KiB at most
const SESSION = /^[A-Za-z0-9_-]{16,64}$/;

/**
 * Hands events to the browser, which sends them even while the page goes away; whether it took all of them. A beacon
 * that the browser refuses keeps none of the others back.
 *
 * @param {Requests} requests
 * @param {string} sessionId
 * @param {readonly BeaconEvent[]} events
 * @returns {boolean}
 */
export function sendBeacon(requests, sessionId, events) {
  if (typeof sessionId !== "string" || !SESSION.test(sessionId)) {
    throw invalid("sessionId", sessionId, "Give 16 to 64 letters, digits, - and _: crypto.randomUUID(), kept by the page.");
  }
  if (!Array.isArray(events)) throw invalid("events", events, "Give an array of events.");
  const sent = Array.from(events, (event, place) => beaconEvent(event, `events[${place}]`));
  const key = requests.keyHeader["X-API-Key"];
  const url = `${requests.baseUrl}/beacon${key === undefined ? "" : `?${new URLSearchParams({ key })}`}`;
  return bodies(sessionId, sent)
    .map((body) => handOver(requests, url, body))
    .every(Boolean);
}

/**
 * @param {unknown} event
 * @param {string} where
 */
function beaconEvent(event, where) {
  const fields = object(event, where, 'Give { item_id: "…", event: "view" }.');
  if (fields.user_id !== undefined) throw invalid(`${where}.user_id`, fields.user_id, "A beacon names no user.");
  return { event_id: newId(), ...given(fields, where) };
}

/**
 * The bodies of as few beacons as the events need.
 *
 * @param {string} session_id
 * @param {object[]} events
 */
function bodies(session_id, events) {
  /** @type {string[]} */
  const found = [];
  /** @type {object[]} */
  let part = [];
  let size = 0;
  for (const event of events) {
    const bytes = new TextEncoder().encode(JSON.stringify(event)).length + 1;
    if (part.length === MAX_EVENTS || (part.length > 0 && size + bytes > MAX_BYTES)) {
      found.push(JSON.stringify({ session_id, events: part }));
      part = [];
      size = 0;
    }
    part.push(event);
    size += bytes;
  }
  if (part.length) found.push(JSON.stringify({ session_id, events: part }));
  return found;
}

/**
 * @param {Requests} requests
 * @param {string} url
 * @param {string} body
 */
function handOver(requests, url, body) {
  const browser = globalThis.navigator;
  if (typeof browser?.sendBeacon === "function") return browser.sendBeacon(url, body);
  const headers = { "Content-Type": "text/plain" };
  requests.fetch(url, { method: "POST", body, headers, keepalive: true, redirect: "manual" }).catch(() => {});
  return true;
}
