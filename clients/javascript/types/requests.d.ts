/**
 * What a promise becomes; `client.timeout` where that takes too long, even if the caller's own `fetch` never ends.
 *
 * @template T
 * @param {Promise<T>} work
 * @param {number} timeoutMs
 * @param {AbortSignal | null} [signal] the caller's
 * @returns {Promise<T>}
 */
export function inTime<T>(work: Promise<T>, timeoutMs: number, signal?: AbortSignal | null): Promise<T>;
/**
 * @param {number} ms
 * @param {AbortSignal | null} [signal]
 */
export function pause(ms: number, signal?: AbortSignal | null): Promise<void>;
/** @param {string} text */
export function parsed(text: string): any;
export class Requests {
    /**
     * @param {string} baseUrl
     * @param {ClientOptions} options
     */
    constructor(baseUrl: string, options: ClientOptions);
    reads: {
        timeoutMs: number;
        tries: number;
        deadlineMs: number;
    };
    writes: {
        timeoutMs: number;
        tries: number;
        deadlineMs: number;
    };
    bulk: {
        timeoutMs: number;
        tries: number;
        deadlineMs: number;
    };
    baseUrl: string;
    keyHeader: Record<string, string>;
    /** @type {typeof globalThis.fetch} */
    fetch: typeof globalThis.fetch;
    /**
     * The decoded answer; null for an empty one.
     *
     * @param {string} method
     * @param {string} path
     * @param {Wanted} wanted
     * @returns {Promise<any>}
     */
    send(method: string, path: string, wanted: Wanted): Promise<any>;
    /**
     * A good answer whose body has not been read; tried again only until it begins.
     *
     * @param {string} path
     * @param {Wanted} wanted
     * @returns {Promise<Opened>}
     */
    open(path: string, wanted: Wanted): Promise<Opened>;
    /**
     * @param {string} method
     * @param {string} path
     * @param {Wanted} wanted
     * @returns {Request}
     */
    request(method: string, path: string, { query, text, lines }: Wanted): Request;
    /**
     * @param {Request} request
     * @param {Wanted} wanted
     * @param {AbortSignal} signal
     * @returns {Promise<{ answer: any } | Failed>}
     */
    ask(request: Request, { field, kind }: Wanted, signal: AbortSignal): Promise<{
        answer: any;
    } | Failed>;
    /**
     * The answer once its head is there, or the failure that it is.
     *
     * @param {Request} request
     * @param {AbortSignal} signal
     * @returns {Promise<Response | Failed>}
     */
    begin({ method, url, text, lines }: Request, signal: AbortSignal): Promise<Response | Failed>;
}
export function backOffMs(tried: number): number;
/**
 * `field` is what the answer must have: a list, an object or a text, as `kind` says; an answer without a body (204) has
 * none. `end` is the moment of the deadline, for several requests of one call.
 */
export type Wanted = {
    query?: unknown;
    text?: string;
    lines?: boolean;
    field?: string;
    kind?: "list" | "object" | "text";
    patience: Patience;
    end?: number;
    signal?: AbortSignal | null;
};
export type Request = {
    method: string;
    url: string;
    text?: string;
    lines?: boolean;
};
export type Opened = {
    response: Response;
    abort: AbortController;
    end: number;
    patience: Patience;
};
export type Failed = {
    error: IsrfError;
    again: boolean;
    waitMs: number;
};
import type { ClientOptions } from "./types.js";
import type { Patience } from "./types.js";
import { IsrfError } from "./errors.js";
