/** Checks and converts what a caller gives, before anything is sent: ids to text, no undefined, nothing beyond JSON. */

import { IsrfError, invalid, shown } from "./errors.js";

/**
 * @import { Id } from "./types.js"
 */

const MAX_DEPTH = 32;
const IDS = new Set(["user_id", "session_id", "item_id", "event_id"]);
const ID_LISTS = new Set(["exclude", "session", "history", "candidates", "users", "cart"]);
const HALF = /\p{Surrogate}/u;

/**
 * An id as the service knows it: a string as it is, an integer as its decimal text.
 *
 * @param {unknown} id
 * @param {string} where
 * @returns {string}
 */
export function idText(id, where) {
  const whole = typeof id === "bigint" || Number.isSafeInteger(id);
  if (whole) return String(id);
  if (typeof id === "string" && !HALF.test(id)) return id;
  const fix = "An id is a string of valid Unicode, or an integer up to 2^53, which is sent as its decimal text.";
  throw new IsrfError("client.invalid_id", `${where} is ${shown(id)}.`, { fix });
}

/**
 * @param {unknown} ids
 * @param {string} where
 * @returns {string[]}
 */
export function idTexts(ids, where) {
  if (!Array.isArray(ids)) throw invalid(where, ids, "Give an array of ids.");
  return Array.from(ids, (id, place) => idText(id, `${where}[${place}]`));
}

/**
 * An id as one segment of a path. Any id becomes one, but not `.` and `..`: every URL parser reads them as steps in the
 * path, even percent-encoded.
 *
 * @param {Id} id
 * @param {string} where
 */
export function segment(id, where) {
  const text = idText(id, where);
  if (text === "" || text === "." || text === "..") {
    const fix = text ? "Browsers cannot send it; the Python client can." : "Give the shop's own id.";
    throw new IsrfError("client.invalid_id", `${where} is ${shown(text)}.`, { fix });
  }
  return encodeURIComponent(text).replaceAll(".", "%2E");
}

/**
 * Options without those that are undefined or null.
 *
 * @param {unknown} options
 * @returns {Record<string, any>}
 */
export function known(options) {
  if (options === undefined || options === null) return {};
  const fields = object(options, "options", "Give an object, as { n: 5 }.");
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== null));
}

/**
 * Fields of a call as JSON can hold them, without those that are undefined or null.
 *
 * @param {unknown} fields
 * @param {string} [where]
 * @returns {Record<string, any>}
 */
export function given(fields, where = "") {
  return Object.fromEntries(
    Object.entries(known(fields)).map(([name, value]) => {
      const place = where ? `${where}.${name}` : name;
      if (IDS.has(name)) return [name, idText(value, place)];
      if (name === "context") object(value, place, 'Give an object of texts: { theme: "red" }.');
      return [name, ID_LISTS.has(name) ? idTexts(value, place) : plain(value, place)];
    }),
  );
}

/**
 * An item's or user's record as JSON can hold it. null stays: it removes an item's field. Other names than those of ids
 * are the shop's own.
 *
 * @param {unknown} record
 * @param {string} where
 * @returns {Record<string, any>}
 */
export function recordOf(record, where) {
  const fields = object(record, where, 'Give an object, as { item_id: "…", price: 5 }.');
  return Object.fromEntries(
    Object.entries(fields)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => {
        const place = `${where}.${name}`;
        return [name, IDS.has(name) && value !== null ? idText(value, place) : plain(value, place)];
      }),
  );
}

/**
 * Options as the parameters of a URL: a list is a repeated parameter, `context` one for each name.
 *
 * @param {unknown} options
 * @returns {[string, string][]}
 */
export function queryPairs(options) {
  const { context = {}, ...others } = given(options);
  const named = Object.entries(context).map(([name, value]) => [`context.${name}`, value]);
  return [...Object.entries(others), ...named].flatMap(([name, value]) =>
    [value].flat().map((one) => {
      if (one === null || typeof one === "object") throw invalid(name, value, "Give single values.");
      return /** @type {[string, string]} */ ([name, String(one)]);
    }),
  );
}

/**
 * Checks that JSON can hold a value: JSON.stringify turns NaN into null and a Map into {}, and drops unknown types.
 *
 * @param {unknown} value
 * @param {string} where
 * @param {number} [depth]
 * @returns {any}
 */
function plain(value, where, depth = 0) {
  if (value === null || typeof value === "boolean" || Number.isFinite(value)) return value;
  if (typeof value === "string" && !HALF.test(value)) return value;
  if (depth < MAX_DEPTH && Array.isArray(value)) {
    return Array.from(value, (one, place) => plain(one, `${where}[${place}]`, depth + 1));
  }
  if (depth < MAX_DEPTH && isObject(value)) {
    const named = Object.entries(value).filter(([, one]) => one !== undefined);
    return Object.fromEntries(
      named.map(([name, inner]) => [plain(name, where), plain(inner, `${where}.${name}`, depth + 1)]),
    );
  }
  throw invalid(where, value, "Give text, a finite number, true or false, or arrays and objects of those.");
}

/**
 * @param {unknown} value
 * @param {string} where
 * @param {string} fix
 */
export function object(value, where, fix) {
  if (!isObject(value)) throw invalid(where, value, fix);
  return value;
}

/**
 * Whether a value is a plain object, of another frame too.
 *
 * @param {unknown} value
 * @returns {value is Record<string, unknown>}
 */
export function isObject(value) {
  if (typeof value !== "object" || value === null) return false;
  const kind = Object.getPrototypeOf(value);
  return kind === null || (Object.getPrototypeOf(kind) === null && Object.hasOwn(kind, "hasOwnProperty"));
}
