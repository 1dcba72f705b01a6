/**
 * Sends requests within a time, and again where a failure may pass. Every request is safe to send twice: a read, an
 * erasure, a change as a whole, or events with their ids.
 */

import { IsrfError, invalid, late, shown, unreadable } from "./errors.js";
import { isObject, known, queryPairs } from "./values.js";

/**
 * @import { BadField, ClientOptions, Patience } from "./types.js"
 */

/**
 * `field` is what the answer must have: a list, an object or a text, as `kind` says; an answer without a body (204) has
 * none. `end` is the moment of the deadline, for several requests of one call.
 *
 * @typedef {{
 *   query?: unknown, text?: string, lines?: boolean, field?: string, kind?: "list" | "object" | "text",
 *   patience: Patience, end?: number, signal?: AbortSignal | null
 * }} Wanted
 */
/** @typedef {{ method: string, url: string, text?: string, lines?: boolean }} Request */
/** @typedef {{ response: Response, abort: AbortController, end: number, patience: Patience }} Opened */
/** @typedef {{ error: IsrfError, again: boolean, waitMs: number }} Failed */

const AGAIN = new Set([408, 429, 502, 503, 504]);
const MAX_URL = 60_000;
const MAX_MS = 2 ** 31 - 1; // of a timer
/** @type {Patience} */
const READS = { timeoutMs: 1000, tries: 2, deadlineMs: 2000 };
/** @type {Patience} */
const WRITES = { timeoutMs: 5000, tries: 6, deadlineMs: 30_000 };
/** @type {Patience} */
const BULK = { timeoutMs: 60_000, tries: 6, deadlineMs: 3_600_000 };

export class Requests {
  /**
   * @param {string} baseUrl
   * @param {ClientOptions} options
   */
  constructor(baseUrl, options) {
    const { apiKey, fetch, bulk, timeoutMs, tries, deadlineMs, ...others } = known(options);
    const [foreign] = Object.keys(others);
    if (foreign !== undefined) {
      throw invalid("an option", foreign, "The options are apiKey, fetch, timeoutMs, tries, deadlineMs, bulk.");
    }
    if (fetch !== undefined && typeof fetch !== "function") throw invalid("fetch", fetch, "Give a function.");
    const patience = checkedPatience({ timeoutMs, tries, deadlineMs });
    this.reads = { ...READS, ...patience };
    this.writes = { ...WRITES, ...patience };
    this.bulk = { ...BULK, ...checkedPatience(bulk) };
    this.baseUrl = checkedUrl(baseUrl);
    this.keyHeader = keyHeader(apiKey);
    /** @type {typeof globalThis.fetch} */
    this.fetch = fetch ?? globalThis.fetch.bind(globalThis);
  }

  /**
   * The decoded answer; null for an empty one.
   *
   * @param {string} method
   * @param {string} path
   * @param {Wanted} wanted
   * @returns {Promise<any>}
   */
  async send(method, path, wanted) {
    const request = this.request(method, path, wanted);
    return retried(wanted, async (timeoutMs) => {
      const abort = new AbortController();
      try {
        return await inTime(this.ask(request, wanted, abort.signal), timeoutMs, wanted.signal);
      } finally {
        abort.abort();
      }
    });
  }

  /**
   * A good answer whose body has not been read; tried again only until it begins.
   *
   * @param {string} path
   * @param {Wanted} wanted
   * @returns {Promise<Opened>}
   */
  async open(path, wanted) {
    const request = this.request("GET", path, wanted);
    const end = performance.now() + wanted.patience.deadlineMs;
    return retried({ ...wanted, end }, async (timeoutMs) => {
      const abort = new AbortController();
      let begun;
      try {
        begun = await inTime(this.begin(request, abort.signal), timeoutMs, wanted.signal);
        return isFailed(begun) ? begun : { answer: { response: begun, abort, end, patience: wanted.patience } };
      } finally {
        if (begun === undefined || isFailed(begun)) abort.abort();
      }
    });
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {Wanted} wanted
   * @returns {Request}
   */
  request(method, path, { query, text, lines }) {
    const pairs = queryPairs(query);
    const url = path + (pairs.length ? `?${new URLSearchParams(pairs)}` : "");
    if (url.length > MAX_URL) {
      const fix = "Give fewer ids; the body of recommendSession or rank takes up to 1,000.";
      throw new IsrfError("client.url_too_long", `path and parameters have ${url.length} characters.`, { fix });
    }
    return { method, url: this.baseUrl + url, text, lines };
  }

  /**
   * @param {Request} request
   * @param {Wanted} wanted
   * @param {AbortSignal} signal
   * @returns {Promise<{ answer: any } | Failed>}
   */
  async ask(request, { field, kind }, signal) {
    const begun = await this.begin(request, signal);
    if (isFailed(begun)) return begun;
    let body;
    try {
      body = parsed(await begun.text());
    } catch (cause) {
      return unreachable(cause);
    }
    if (field === undefined) {
      return begun.status === 204 ? { answer: null } : failed(unreadable(`status ${begun.status}`));
    }
    return has(body, field, kind) ? { answer: body } : failed(unreadable(`status ${begun.status} without ${field}`));
  }

  /**
   * The answer once its head is there, or the failure that it is.
   *
   * @param {Request} request
   * @param {AbortSignal} signal
   * @returns {Promise<Response | Failed>}
   */
  async begin({ method, url, text, lines }, signal) {
    const type = lines ? "application/x-ndjson" : "application/json";
    const headers = { ...(text === undefined ? {} : { "Content-Type": type }), ...this.keyHeader };
    try {
      // Follows no redirect: a key is for one address.
      const response = await this.fetch(url, { method, body: text, headers, signal, redirect: "manual" });
      return response.ok ? response : problemOf(response, parsed(await response.text()));
    } catch (cause) {
      return unreachable(cause);
    }
  }
}

/**
 * Tries until there is an answer, or tries or time are used up.
 *
 * @template T
 * @param {Wanted} wanted
 * @param {(timeoutMs: number) => Promise<{ answer: T } | Failed>} attempt
 * @returns {Promise<T>}
 */
async function retried({ patience, end, signal }, attempt) {
  const last = end ?? performance.now() + patience.deadlineMs;
  for (let tried = 1; ; tried++) {
    const leftMs = Math.min(patience.timeoutMs, last - performance.now());
    if (signal?.aborted) throw aborted();
    const outcome = leftMs > 0 ? await attempt(leftMs).catch(lateOnly) : failed(late(), true);
    if (!isFailed(outcome)) return outcome.answer;
    const pauseMs = Math.max(outcome.waitMs, backOffMs(tried));
    if (!outcome.again || tried >= patience.tries || performance.now() + pauseMs >= last) throw outcome.error;
    await pause(pauseMs, signal);
  }
}

/** @param {unknown} error */
function lateOnly(error) {
  if (error instanceof IsrfError && error.code === "client.timeout") return failed(error, true);
  throw error;
}

/**
 * What a promise becomes; `client.timeout` where that takes too long, even if the caller's own `fetch` never ends.
 *
 * @template T
 * @param {Promise<T>} work
 * @param {number} timeoutMs
 * @param {AbortSignal | null} [signal] the caller's
 * @returns {Promise<T>}
 */
export async function inTime(work, timeoutMs, signal) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** @type {(() => void) | undefined} */
  let leave;
  /** @type {Promise<never>} */
  const ended = new Promise((_, reject) => {
    timer = setTimeout(() => reject(late()), Math.max(0, timeoutMs));
    leave = () => reject(aborted());
    signal?.addEventListener("abort", leave);
  });
  try {
    if (signal?.aborted) throw aborted();
    return await Promise.race([work, ended]);
  } finally {
    work.catch(() => {}); // what fails later has no reader
    ended.catch(() => {});
    clearTimeout(timer);
    if (leave) signal?.removeEventListener("abort", leave);
  }
}

/**
 * @param {number} ms
 * @param {AbortSignal | null} [signal]
 */
export async function pause(ms, signal) {
  await inTime(new Promise(() => {}), ms, signal).catch(lateOnly);
}

/** @param {number} tried */
export const backOffMs = (tried) => 100 * 2 ** (tried - 1) * (0.5 + Math.random() / 2);

function aborted() {
  const fix = "Nothing: the caller's signal ended the call. Events that were being sent may count; send them again.";
  return new IsrfError("client.aborted", "the call was ended by its signal.", { fix });
}

/**
 * @param {IsrfError} error
 * @param {boolean} [again]
 * @param {number} [waitMs]
 * @returns {Failed}
 */
const failed = (error, again = false, waitMs = 0) => ({ error, again, waitMs });

/** @param {unknown} cause */
function unreachable(cause) {
  const fix = "Show a fallback; check that the service runs there and allows this origin (ISRF_CORS_ORIGINS).";
  const name = cause instanceof Error ? cause.name : typeof cause;
  return failed(new IsrfError("client.unreachable", `no answer (${name}).`, { fix }), true);
}

/**
 * @param {Response} response
 * @param {any} body
 */
function problemOf(response, body) {
  // A gateway before the service may answer too, without codes.
  const status = response.status;
  /** @type {(name: string) => string | null} */
  const of = (name) => (typeof body?.[name] === "string" ? body[name] : null);
  const elsewhere = "Check baseUrl: it redirects, or a gateway before the service answered.";
  const code = of("code") ?? `http.${status || "redirect"}`;
  /** @type {BadField[]} */
  const errors = Array.isArray(body?.errors) ? body.errors.filter(isObject) : [];
  const error = new IsrfError(code, of("detail") ?? `HTTP ${status} ${response.statusText}`, {
    status,
    fix: of("fix") ?? (of("code") ? "" : elsewhere),
    requestId: of("request_id") ?? response.headers.get("X-Request-ID") ?? "",
    errors,
  });
  return failed(error, AGAIN.has(status), retryAfterMs(response.headers.get("Retry-After")));
}

/**
 * Seconds or a date.
 *
 * @param {string | null} value
 */
function retryAfterMs(value) {
  if (!value) return 0;
  const ms = /^\d+$/.test(value.trim()) ? 1000 * Number(value) : Date.parse(value) - Date.now();
  return Number.isNaN(ms) ? 0 : Math.max(0, ms);
}

/**
 * @param {any} answer
 * @param {string} field
 * @param {"list" | "object" | "text"} [kind]
 */
function has(answer, field, kind = "list") {
  if (!isObject(answer)) return false;
  const value = answer[field];
  if (kind === "text") return typeof value === "string";
  return kind === "list" ? Array.isArray(value) : isObject(value);
}

/**
 * @param {object} outcome
 * @returns {outcome is Failed}
 */
const isFailed = (outcome) => "error" in outcome && outcome.error instanceof IsrfError;

/** @param {string} text */
export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * @param {unknown} patience
 * @returns {Partial<Patience>}
 */
function checkedPatience(patience) {
  const { timeoutMs, tries, deadlineMs, ...others } = known(patience);
  const [foreign] = Object.keys(others);
  if (foreign !== undefined) throw invalid("an option", foreign, "The options are timeoutMs, tries, deadlineMs.");
  const found = known({ timeoutMs, tries, deadlineMs });
  for (const [name, value] of Object.entries(found)) {
    if (!Number.isFinite(value) || value <= 0 || value > MAX_MS || (name === "tries" && !Number.isInteger(value))) {
      const fix = "Give a number above 0.";
      throw new IsrfError("client.invalid_patience", `${name} is ${shown(value)}.`, { fix });
    }
  }
  return found;
}

/** @param {unknown} baseUrl */
function checkedUrl(baseUrl) {
  let url = null;
  try {
    url = new URL(/** @type {string} */ (baseUrl), globalThis.location?.href);
  } catch {
    // refused below
  }
  const good = typeof baseUrl === "string" && url && /^https?:$/.test(url.protocol) && !url.username && !url.password;
  if (!good || /[?#]/.test(baseUrl)) {
    const fix = "Give http(s)://host[:port][/path], or nothing on a page of the service itself.";
    // An address may hold a password.
    const found = String(baseUrl).includes("@") ? "an address with a user or a password" : shown(baseUrl);
    throw new IsrfError("client.invalid_url", `baseUrl is ${found}.`, { fix });
  }
  return baseUrl.replace(/\/+$/, "");
}

/**
 * @param {unknown} apiKey
 * @returns {Record<string, string>}
 */
function keyHeader(apiKey) {
  if (apiKey === null || apiKey === undefined) return {};
  if (typeof apiKey !== "string" || !/^[\x20-\x7e]+$/.test(apiKey.trim())) {
    const fix = "Give the key as `python -m service keys add` printed it, or none.";
    throw new IsrfError("client.invalid_key", "apiKey is empty, not text, or has other characters.", { fix });
  }
  return { "X-API-Key": apiKey.trim() };
}
