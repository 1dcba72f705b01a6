/** @param {string} found */
export function unreadable(found: string): IsrfError;
export function late(): IsrfError;
/**
 * A value as a message shows it, of bounded length.
 *
 * @param {unknown} value
 */
export function shown(value: unknown): string;
/** What a call throws, and the errors that several modules make. */
/**
 * @import { BadField, Imported, PreparedEvent, Result } from "./types.js"
 */
/**
 * Every failure of a client. `code` is stable: the service's own, `http.` and a status, or client.timeout,
 * client.unreachable, client.unreadable, client.too_large, client.aborted, client.invalid_id, client.invalid_value,
 * client.invalid_url, client.invalid_key, client.invalid_patience, client.url_too_long.
 */
export class IsrfError extends Error {
    /**
     * @param {string} code
     * @param {string} message what is wrong
     * @param {{ status?: number, fix?: string, requestId?: string, errors?: BadField[] }} [details]
     */
    constructor(code: string, message: string, { status, fix, requestId, errors }?: {
        status?: number;
        fix?: string;
        requestId?: string;
        errors?: BadField[];
    });
    code: string;
    /** The HTTP status; 0 without an answer. */
    status: number;
    /** What to do about it. */
    fix: string;
    /** Finds the request in the service's log; may be empty. */
    requestId: string;
    /** The invalid fields of a refused request. */
    errors: {
        where: string;
        message: string;
    }[];
    /** @type {PreparedEvent[]} Of `interactions`: the events to send again, with their ids. */
    events: PreparedEvent[];
    /** @type {(Result | null)[]} Of `interactions`: the result of each event, null where there is none. */
    results: (Result | null)[];
    /** @type {Record<string, unknown>[]} Of an import: the records of the part that was not answered, as sent. */
    records: Record<string, unknown>[];
    /** @type {Imported | null} Of an import: the outcome of the parts before. */
    report: Imported | null;
}
export function invalid(where: string, value: unknown, fix: string): IsrfError;
import type { PreparedEvent } from "./types.js";
import type { Result } from "./types.js";
import type { Imported } from "./types.js";
import type { BadField } from "./types.js";
