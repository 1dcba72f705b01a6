// A client of the recommendation service for browsers and Node 18+: bounded in time, with safe retries.
//
//   const isrf = new IsrfClient("http://127.0.0.1:8000");
//   const answer = await isrf.recommend("shopper-0393", { n: 5, explain: true });
//   await isrf.interactions([{ user_id: "shopper-0393", item_id: answer.items[0].item_id, event: "view" }]);
//
// Every failure is an IsrfError. Undefined and null values are not sent; values that JSON cannot hold are refused.
// A key can read and write every user's data: do not send one to browsers, call through your own backend.

const AGAIN = new Set([408, 429, 502, 503, 504]);
const READS = { timeoutMs: 1000, tries: 2, deadlineMs: 2000 };
const WRITES = { timeoutMs: 5000, tries: 6, deadlineMs: 30_000 };
const MAX_EVENTS = 1000; // of one request
const MAX_URL = 60_000;
const MAX_DEPTH = 32;
const MAX_MS = 2 ** 31 - 1; // of a timer
const NOT_NOW = "store_unavailable";
const IDS = new Set(["user_id", "item_id", "event_id"]);
const ID_LISTS = new Set(["exclude", "session", "history", "candidates", "users", "cart"]);
const OBJECTS = new Set(["placement", "affinities", "after"]); // fields of answers that are no lists
const HALF = /\p{Surrogate}/u;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export class IsrfError extends Error {
  /**
   * @param {string} code stable: the service's own, `http.` and a status, or client.timeout, client.unreachable,
   *   client.unreadable, client.invalid_id, client.invalid_value, client.invalid_url, client.invalid_key,
   *   client.invalid_patience, client.url_too_long
   * `errors` has the invalid fields of a refused request, each with `where` and `message`.
   * For `interactions`, `events` are those to send again, with their ids; `results` has the result of each event of
   * the call, null where there is none.
   */
  constructor(code, message, { status = 0, fix = "", requestId = "", errors = [] } = {}) {
    super(message);
    Object.assign(this, { name: "IsrfError", code, status, fix, requestId, errors, events: [], results: [] });
  }
}

export class IsrfClient {
  /** `timeoutMs` of one try, `tries` of one request, `deadlineMs` of a whole call. The defaults are 1 s, 2 and 2 s for
   * a read, and 5 s, 6 and 30 s for `interactions`, `erase` and changes of placements. */
  constructor(baseUrl = "", options = {}) {
    const { apiKey, fetch, timeoutMs, tries, deadlineMs, ...others } = known(options);
    const [foreign] = Object.keys(others);
    if (foreign !== undefined) {
      throw invalid("an option", foreign, "The options are apiKey, fetch, timeoutMs, tries, deadlineMs.");
    }
    if (fetch !== undefined && typeof fetch !== "function") throw invalid("fetch", fetch, "Give a function.");
    const patience = known({ timeoutMs, tries, deadlineMs });
    for (const [name, value] of Object.entries(patience)) {
      if (!Number.isFinite(value) || value <= 0 || value > MAX_MS || (name === "tries" && !Number.isInteger(value))) {
        const fix = "Give a number above 0.";
        throw new IsrfError("client.invalid_patience", `${name} is ${shown(value)}.`, { fix });
      }
    }
    const headers = { "Content-Type": "application/json", ...keyHeader(apiKey) };
    const [reads, writes] = [READS, WRITES].map((usual) => ({ ...usual, ...patience }));
    Object.assign(this, { baseUrl: checkedUrl(baseUrl), headers, reads, writes });
    this.fetch = fetch ?? globalThis.fetch.bind(globalThis);
  }

  recommend = async (userId, options) => this.get(`/recommend/${segment(userId, "userId")}`, "items", options);
  recommendSession = async (history, options) =>
    this.post("/recommend", { history: idTexts(history, "history"), ...known(options) });
  rank = async (candidates, options) =>
    this.post("/rank", { candidates: idTexts(candidates, "candidates"), ...known(options) });
  similar = async (itemId, options) => this.get(`/similar/${segment(itemId, "itemId")}`, "items", options);
  popular = async (options) => this.get("/popular", "items", options);
  user = async (userId, options) => this.get(`/users/${segment(userId, "userId")}`, "history", options);
  erase = async (userId) => this.call("DELETE", `/users/${segment(userId, "userId")}`);
  affinities = async (userId, options) =>
    this.get(`/users/${segment(userId, "userId")}/affinities`, "affinities", options);

  attributes = async (options) => this.get("/attributes", "attributes", options);

  // The named lists of a shop's pages. `options` name the page's user_id, item_id, cart and session.
  placementItems = async (name, options) => this.get(`${placementPath(name)}/items`, "items", options);
  placements = async () => this.get("/placements", "placements");
  placement = async (name) => this.get(placementPath(name), "placement");
  // `options`: expected_version, the stored version without which nothing is changed, 0 for none.
  putPlacement = async (name, placement, options) =>
    this.call("PUT", placementPath(name), { query: options, body: object(placement, "placement"), field: "placement" });
  previewPlacement = async (placement, options) =>
    this.post("/placements/preview", { placement: object(placement, "placement"), ...known(options) }, "after");
  deletePlacement = async (name, options) => this.call("DELETE", placementPath(name), { query: options });

  get = (path, field, query) => this.call("GET", path, { query, field });
  post = (path, body, field = "items") => this.call("POST", path, { body, field });

  /** Posts any number of events. Every event has its id before the first try, so that none counts twice. */
  async interactions(events) {
    const prepared = prepare(events);
    const results = prepared.map(() => null);
    const end = performance.now() + this.writes.deadlineMs;
    try {
      for (let start = 0; start < prepared.length; start += MAX_EVENTS) {
        const places = [...results.keys()].slice(start, start + MAX_EVENTS);
        await this.postPart(prepared, results, places, end);
      }
    } catch (error) {
      const done = (result) => result !== null && result.reason !== NOT_NOW;
      error.results = results;
      error.events = prepared.filter((_, place) => !done(results[place]));
      const count = results.filter(done).length;
      error.message += ` Of ${prepared.length} events ${count} were answered; error.events has the others.`;
      throw error;
    }
    const count = (status) => results.filter((result) => result.status === status).length;
    return { results, accepted: count("accepted"), duplicates: count("duplicate"), refused: count("refused") };
  }

  // Posts the events of one request; sends those again that the store could not accept.
  async postPart(events, results, places, end) {
    let pending = places;
    for (let tried = 1; ; tried++) {
      const body = { events: pending.map((place) => events[place]) };
      const { results: part } = await this.call("POST", "/interactions", { body, end, field: "results" });
      if (part.length !== pending.length || !Array.from(part).every((result) => result?.status)) {
        throw unreadable("not one result for each event");
      }
      pending.forEach((place, k) => (results[place] = { event_id: events[place].event_id, ...part[k] }));
      pending = pending.filter((place) => results[place].reason === NOT_NOW);
      const backOffMs = backOff(tried);
      if (!pending.length || tried >= this.writes.tries || performance.now() + backOffMs >= end) return;
      await pause(backOffMs);
    }
  }

  /** Any call of the service; `field` is what its answer must have: a list, or one of `OBJECTS`. */
  async call(method, path, { query, body, end, field } = {}) {
    const patience = method === "PUT" || method === "DELETE" || end ? this.writes : this.reads;
    const pairs = queryPairs(query);
    const url = path + (pairs.length ? `?${new URLSearchParams(pairs)}` : "");
    if (url.length > MAX_URL) {
      const fix = "Give fewer ids; the body of recommendSession or rank takes up to 1,000.";
      throw new IsrfError("client.url_too_long", `path and parameters have ${url.length} characters.`, { fix });
    }
    const request = { method, ...(body === undefined ? {} : { body: JSON.stringify(given(body)) }) };
    const last = end ?? performance.now() + patience.deadlineMs;
    for (let tried = 1; ; tried++) {
      const leftMs = Math.min(patience.timeoutMs, last - performance.now());
      const outcome = leftMs > 0 ? await this.try(this.baseUrl + url, request, leftMs) : late();
      const { answer, error, again, waitMs } = outcome;
      if (!error && field && !has(answer, field)) throw unreadable(`it has no ${field}`);
      if (!error) return answer;
      const backOffMs = Math.max(waitMs, backOff(tried));
      if (!again || tried >= patience.tries || performance.now() + backOffMs >= last) throw error;
      await pause(backOffMs);
    }
  }

  // One try, from the name lookup to the last byte; ends in time even if the caller's own `fetch` does not.
  async try(url, request, timeoutMs) {
    const abort = new AbortController();
    let timer;
    const timeout = new Promise((done) => (timer = setTimeout(() => done(late()), timeoutMs)));
    try {
      return await Promise.race([this.ask(url, { ...request, signal: abort.signal }), timeout]);
    } finally {
      clearTimeout(timer);
      abort.abort();
    }
  }

  async ask(url, request) {
    let response;
    let text;
    try {
      // Follows no redirect: a key is for one address.
      response = await this.fetch(url, { ...request, headers: this.headers, redirect: "manual" });
      text = await response.text();
    } catch (cause) {
      const fix = "Show a fallback; check that the service runs there and allows this origin (ISRF_CORS_ORIGINS).";
      return failed(new IsrfError("client.unreachable", `no answer (${cause?.name}).`, { fix }), true);
    }
    const body = parsed(text);
    if (response.ok) {
      if (request.method === "DELETE" ? response.status === 204 : isObject(body)) return { answer: body ?? null };
      return failed(unreadable(`status ${response.status}`));
    }
    // A gateway before the service may answer too, without codes.
    const of = (name, otherwise) => (typeof body?.[name] === "string" ? body[name] : otherwise);
    const status = response.status;
    const code = of("code", `http.${status || "redirect"}`);
    const elsewhere = "Check baseUrl: it redirects, or a gateway before the service answered.";
    const error = new IsrfError(code, of("detail", `HTTP ${status} ${response.statusText}`), {
      status,
      fix: of("fix", of("code", null) ? "" : elsewhere),
      requestId: of("request_id", response.headers.get("X-Request-ID") ?? ""),
      errors: Array.isArray(body?.errors) ? body.errors.filter(isObject) : [],
    });
    return failed(error, AGAIN.has(response.status), retryAfterMs(response.headers.get("Retry-After")));
  }
}

/** Returns events as they are sent: each with an `event_id` (new where it has none), ids as text, nothing undefined.
 * Store them before you post them: then each counts once, even if it is sent several times. */
export function prepare(events) {
  if (!Array.isArray(events)) throw invalid("events", events, "Give an array of events.");
  return Array.from(events, (event, place) => {
    const where = `events[${place}]`;
    if (!isObject(event)) throw invalid(where, event, 'Give { user_id: "…", item_id: "…", event: "view" }.');
    const { timestamp, ...fields } = event;
    // A Date counts milliseconds, the service seconds.
    const seconds = timestamp instanceof Date ? timestamp.getTime() / 1000 : timestamp;
    return { event_id: newId(), ...given({ ...fields, timestamp: seconds }, where) };
  });
}

function checkedUrl(baseUrl) {
  let url = null;
  try {
    url = new URL(baseUrl, globalThis.location?.href);
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

function keyHeader(apiKey) {
  if (apiKey === null || apiKey === undefined) return {};
  if (typeof apiKey !== "string" || !/^[\x20-\x7e]+$/.test(apiKey.trim())) {
    const fix = "Give the key as `python -m service keys add` printed it, or none.";
    throw new IsrfError("client.invalid_key", "apiKey is empty, not text, or has other characters.", { fix });
  }
  return { "X-API-Key": apiKey.trim() };
}

// A string as it is, an integer as its decimal text.
function idText(id, where) {
  const whole = typeof id === "bigint" || Number.isSafeInteger(id);
  if (whole) return String(id);
  if (typeof id === "string" && !HALF.test(id)) return id;
  const fix = "An id is a string of valid Unicode, or an integer up to 2^53, which is sent as its decimal text.";
  throw new IsrfError("client.invalid_id", `${where} is ${shown(id)}.`, { fix });
}

function idTexts(ids, where) {
  if (!Array.isArray(ids)) throw invalid(where, ids, "Give an array of ids.");
  return Array.from(ids, (id, place) => idText(id, `${where}[${place}]`));
}

// Any id becomes one segment of a path, but not `.` and `..`: every URL parser reads them as steps in the path, even
// percent-encoded.
function segment(id, where) {
  const text = idText(id, where);
  if (text === "" || text === "." || text === "..") {
    const fix = text ? "Browsers cannot send it; the Python client can." : "Give the shop's own id.";
    throw new IsrfError("client.invalid_id", `${where} is ${shown(text)}.`, { fix });
  }
  return encodeURIComponent(text).replaceAll(".", "%2E");
}

const placementPath = (name) => `/placements/${segment(name, "name")}`;
const has = (answer, field) => (OBJECTS.has(field) ? isObject(answer[field]) : Array.isArray(answer[field]));

function object(value, where) {
  if (!isObject(value)) throw invalid(where, value, 'Give an object, as { kind: "for-user" }.');
  return value;
}

// Drops undefined and null values.
function known(options) {
  if (options === undefined || options === null) return {};
  if (!isObject(options)) throw invalid("options", options, "Give an object, as { n: 5 }.");
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined && value !== null));
}

function given(fields, where = "") {
  const one = ([name, value]) => {
    const place = where ? `${where}.${name}` : name;
    if (IDS.has(name)) return [name, idText(value, place)];
    if (name === "context" && !isObject(value)) throw invalid(place, value, 'Give an object of texts: { theme: "red" }.');
    return [name, ID_LISTS.has(name) ? idTexts(value, place) : plain(value, place)];
  };
  return Object.fromEntries(Object.entries(known(fields)).map(one));
}

function queryPairs(options) {
  const { context = {}, ...others } = given(options);
  const named = Object.entries(context).map(([name, value]) => [`context.${name}`, value]);
  return [...Object.entries(others), ...named].flatMap(([name, value]) =>
    [value].flat().map((one) => {
      if (one === null || typeof one === "object") throw invalid(name, value, "Give single values.");
      return [name, one];
    }),
  );
}

// Checks that JSON can hold a value: JSON.stringify turns NaN into null and a Map into {}, and drops unknown types.
function plain(value, where, depth = 0) {
  if (value === null || typeof value === "boolean" || Number.isFinite(value)) return value;
  if (typeof value === "string" && !HALF.test(value)) return value;
  if (depth < MAX_DEPTH && Array.isArray(value)) {
    return Array.from(value, (one, place) => plain(one, `${where}[${place}]`, depth + 1));
  }
  if (depth < MAX_DEPTH && isObject(value)) {
    const named = Object.entries(value).filter(([, one]) => one !== undefined);
    const one = ([name, inner]) => [plain(name, where), plain(inner, `${where}.${name}`, depth + 1)];
    return Object.fromEntries(named.map(one));
  }
  throw invalid(where, value, "Give text, a finite number, true or false, or arrays and objects of those.");
}

function isObject(value) {
  if (typeof value !== "object" || value === null) return false;
  const kind = Object.getPrototypeOf(value);
  // Accepts objects of another frame too.
  return kind === null || (Object.getPrototypeOf(kind) === null && Object.hasOwn(kind, "hasOwnProperty"));
}

const invalid = (where, value, fix) => new IsrfError("client.invalid_value", `${where} is ${shown(value)}.`, { fix });
const failed = (error, again = false, waitMs = 0) => ({ error, again, waitMs });

function unreadable(found) {
  const fix = "Check baseUrl: another server answers there.";
  return new IsrfError("client.unreadable", `the answer is not from the service: ${found}.`, { fix });
}

function late() {
  const fix = "Show a fallback; to wait longer, set timeoutMs and deadlineMs.";
  return failed(new IsrfError("client.timeout", "no answer in time.", { fix }), true);
}

const backOff = (tried) => 100 * 2 ** (tried - 1) * (0.5 + Math.random() / 2);

function shown(value) {
  if (typeof value === "string") return JSON.stringify(value).slice(0, 60);
  if (typeof value === "object" && value !== null) return Object.prototype.toString.call(value).slice(8, -1);
  return typeof value === "symbol" || typeof value === "function" ? `a ${typeof value}` : String(value);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

// Seconds or a date.
function retryAfterMs(value) {
  if (!value) return 0;
  const ms = /^\d+$/.test(value.trim()) ? 1000 * Number(value) : Date.parse(value) - Date.now();
  return Number.isNaN(ms) ? 0 : Math.max(0, ms);
}

// crypto.randomUUID works only in secure contexts.
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
