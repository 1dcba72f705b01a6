/**
 * Sends records in parts of bounded size, each again until it is answered; holds one part at a time.
 *
 * @param {Requests} requests
 * @param {string} path
 * @param {Iterable<unknown> | AsyncIterable<unknown>} records
 * @param {(record: unknown, where: string) => Record<string, unknown>} convert
 * @param {AbortSignal | null | undefined} signal
 * @returns {Promise<Imported>}
 */
export function importRecords(requests: Requests, path: string, records: Iterable<unknown> | AsyncIterable<unknown>, convert: (record: unknown, where: string) => Record<string, unknown>, signal: AbortSignal | null | undefined): Promise<Imported>;
/**
 * Yields the lines of an export. A piece must come within `timeoutMs`, the last one before the call's deadline.
 *
 * @param {Requests} requests
 * @param {string} path
 * @param {AbortSignal | null | undefined} signal
 * @returns {AsyncGenerator<Line, void, void>}
 */
export function exportLines(requests: Requests, path: string, signal: AbortSignal | null | undefined): AsyncGenerator<Line, void, void>;
import type { Requests } from "./requests.js";
import type { Imported } from "./types.js";
import type { Line } from "./types.js";
