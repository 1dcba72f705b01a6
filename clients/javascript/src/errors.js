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
  constructor(code, message, { status = 0, fix = "", requestId = "", errors = [] } = {}) {
    super(message);
    this.name = "IsrfError";
    this.code = code;
    /** The HTTP status; 0 without an answer. */
    this.status = status;
    /** What to do about it. */
    this.fix = fix;
    /** Finds the request in the service's log; may be empty. */
    this.requestId = requestId;
    /** The invalid fields of a refused request. */
    this.errors = errors;
    /** @type {PreparedEvent[]} Of `interactions`: the events to send again, with their ids. */
    this.events = [];
    /** @type {(Result | null)[]} Of `interactions`: the result of each event, null where there is none. */
    this.results = [];
    /** @type {Record<string, unknown>[]} Of an import: the records of the part that was not answered, as sent. */
    this.records = [];
    /** @type {Imported | null} Of an import: the outcome of the parts before. */
    this.report = null;
  }
}

/**
 * @param {string} where
 * @param {unknown} value
 * @param {string} fix
 */
export const invalid = (where, value, fix) =>
  new IsrfError("client.invalid_value", `${where} is ${shown(value)}.`, { fix });

/** @param {string} found */
export function unreadable(found) {
  const fix = "Check baseUrl: another server answers there.";
  return new IsrfError("client.unreadable", `the answer is not from the service: ${found}.`, { fix });
}

export function late() {
  const fix = "Show a fallback; to wait longer, set timeoutMs and deadlineMs.";
  return new IsrfError("client.timeout", "no answer in time.", { fix });
}

/**
 * A value as a message shows it, of bounded length.
 *
 * @param {unknown} value
 */
export function shown(value) {
  if (typeof value === "string") return JSON.stringify(value).slice(0, 60);
  if (typeof value === "object" && value !== null) return Object.prototype.toString.call(value).slice(8, -1);
  return typeof value === "symbol" || typeof value === "function" ? `a ${typeof value}` : String(value).slice(0, 60);
}
