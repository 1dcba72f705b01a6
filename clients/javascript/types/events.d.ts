/**
 * Returns events as they are sent: each with an `event_id` (new where it has none), ids as text, nothing undefined.
 * Store them before you post them: then each counts once, even if it is sent several times.
 *
 * @param {readonly Event[]} events
 * @returns {PreparedEvent[]}
 */
export function prepare(events: readonly Event[]): PreparedEvent[];
/**
 * @param {unknown} event
 * @param {string} where
 * @returns {PreparedEvent}
 */
export function preparedEvent(event: unknown, where: string): PreparedEvent;
/**
 * @param {Requests} requests
 * @param {readonly Event[]} events
 * @param {AbortSignal | null | undefined} signal
 * @returns {Promise<InteractionsAnswer>}
 */
export function postEvents(requests: Requests, events: readonly Event[], signal: AbortSignal | null | undefined): Promise<InteractionsAnswer>;
/**
 * 128 random bits. crypto.randomUUID works only in secure contexts, and Node 18 has no global `crypto`; an id need not be
 * secret, only its own.
 */
export function newId(): string;
export const NOT_NOW: "store_unavailable";
import type { Event } from "./types.js";
import type { PreparedEvent } from "./types.js";
import type { Requests } from "./requests.js";
import type { InteractionsAnswer } from "./types.js";
