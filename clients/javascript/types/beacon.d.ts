/**
 * Hands events to the browser, which sends them even while the page goes away; whether it took all of them. A beacon
 * that the browser refuses keeps none of the others back.
 *
 * @param {Requests} requests
 * @param {string} sessionId
 * @param {readonly BeaconEvent[]} events
 * @returns {boolean}
 */
export function sendBeacon(requests: Requests, sessionId: string, events: readonly BeaconEvent[]): boolean;
import type { Requests } from "./requests.js";
import type { BeaconEvent } from "./types.js";
