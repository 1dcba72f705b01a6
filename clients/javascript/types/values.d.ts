/**
 * An id as the service knows it: a string as it is, an integer as its decimal text.
 *
 * @param {unknown} id
 * @param {string} where
 * @returns {string}
 */
export function idText(id: unknown, where: string): string;
/**
 * @param {unknown} ids
 * @param {string} where
 * @returns {string[]}
 */
export function idTexts(ids: unknown, where: string): string[];
/**
 * An id as one segment of a path. Any id becomes one, but not `.` and `..`: every URL parser reads them as steps in the
 * path, even percent-encoded.
 *
 * @param {Id} id
 * @param {string} where
 */
export function segment(id: Id, where: string): string;
/**
 * Options without those that are undefined or null.
 *
 * @param {unknown} options
 * @returns {Record<string, any>}
 */
export function known(options: unknown): Record<string, any>;
/**
 * Fields of a call as JSON can hold them, without those that are undefined or null.
 *
 * @param {unknown} fields
 * @param {string} [where]
 * @returns {Record<string, any>}
 */
export function given(fields: unknown, where?: string): Record<string, any>;
/**
 * An item's or user's record as JSON can hold it. null stays: it removes an item's field. Other names than those of ids
 * are the shop's own.
 *
 * @param {unknown} record
 * @param {string} where
 * @returns {Record<string, any>}
 */
export function recordOf(record: unknown, where: string): Record<string, any>;
/**
 * Options as the parameters of a URL: a list is a repeated parameter, `context` one for each name.
 *
 * @param {unknown} options
 * @returns {[string, string][]}
 */
export function queryPairs(options: unknown): [string, string][];
/**
 * @param {unknown} value
 * @param {string} where
 * @param {string} fix
 */
export function object(value: unknown, where: string, fix: string): Record<string, unknown>;
/**
 * Whether a value is a plain object, of another frame too.
 *
 * @param {unknown} value
 * @returns {value is Record<string, unknown>}
 */
export function isObject(value: unknown): value is Record<string, unknown>;
import type { Id } from "./types.js";
