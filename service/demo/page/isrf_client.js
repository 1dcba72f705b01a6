// Calls the recommendation service from a browser or Node 18+: bounded in time, tried again where that is safe.
//
//   const isrf = new IsrfClient("http://127.0.0.1:8000");
//   const answer = await isrf.recommend("shopper-0393", { n: 5, explain: true });
//   await isrf.interactions([{ user_id: "shopper-0393", item_id: answer.items[0].item_id, event: "view" }]);
//
// A key lets its holder read and write anybody's data: do not send one to browsers, call through your own backend.

const AGAIN = new Set([408, 429, 502, 503, 504]);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
// An id is one segment of a path, whatever stands in it.
const segment = (id) => encodeURIComponent(id).replaceAll(".", "%2E");

export class IsrfError extends Error {
  /** @param {string} code stable: the service's own, or client.timeout, client.unreachable, client.unreadable */
  constructor(code, message, { status = 0, fix = "", requestId = "" } = {}) {
    super(message);
    Object.assign(this, { name: "IsrfError", code, status, fix, requestId });
  }
}

export class IsrfClient {
  constructor(baseUrl = "", { apiKey = null, timeoutMs = 2000, tries = 3, deadlineMs = 8000, fetch = null } = {}) {
    const headers = { "Content-Type": "application/json", ...(apiKey ? { "X-API-Key": apiKey } : {}) };
    Object.assign(this, { baseUrl: baseUrl.replace(/\/+$/, ""), headers, timeoutMs, tries, deadlineMs });
    this.fetch = fetch ?? globalThis.fetch.bind(globalThis);
  }

  recommend = (userId, options = {}) => this.call("GET", `/recommend/${segment(userId)}`, { query: options });
  recommendSession = (history, options = {}) => this.call("POST", "/recommend", { body: { history, ...options } });
  rank = (candidates, options = {}) => this.call("POST", "/rank", { body: { candidates, ...options } });
  similar = (itemId, options = {}) => this.call("GET", `/similar/${segment(itemId)}`, { query: options });
  popular = (options = {}) => this.call("GET", "/popular", { query: options });
  user = (userId) => this.call("GET", `/users/${segment(userId)}`);
  erase = (userId) => this.call("DELETE", `/users/${segment(userId)}`);
  // Every event has its id before the first try: a lost answer doubles nothing.
  interactions = (events) =>
    this.call("POST", "/interactions", { body: { events: events.map((one) => ({ event_id: newId(), ...one })) } });

  async call(method, path, { query = {}, body } = {}) {
    const pairs = Object.entries(query).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
    const url = this.baseUrl + path + (pairs.length ? `?${new URLSearchParams(pairs)}` : "");
    const end = Date.now() + this.deadlineMs;
    for (let tried = 1; ; tried++) {
      const { answer, error, waitMs } = await this.try(url, { method, body: body && JSON.stringify(body) });
      if (!error) return answer;
      const backOffMs = Math.max(waitMs, 100 * 2 ** (tried - 1) * (0.5 + Math.random() / 2));
      const mayPass = error.status === 0 || AGAIN.has(error.status);
      if (!mayPass || tried >= this.tries || Date.now() + backOffMs >= end) throw error;
      await pause(backOffMs);
    }
  }

  async try(url, request) {
    let response;
    let text;
    try {
      response = await this.fetch(url, { ...request, headers: this.headers, signal: AbortSignal.timeout(this.timeoutMs) });
      text = await response.text();
    } catch (cause) {
      const code = cause.name === "TimeoutError" ? "client.timeout" : "client.unreachable";
      return { error: new IsrfError(code, `no answer (${cause.name})`), waitMs: 0 };
    }
    let told = null;
    try {
      told = text ? JSON.parse(text) : null;
    } catch {
      if (response.ok) return { error: new IsrfError("client.unreadable", "an answer that is no JSON"), waitMs: 0 };
    }
    if (response.ok) return { answer: told };
    const { code = `http.${response.status}`, detail = response.statusText, fix, request_id: requestId } = told ?? {};
    const waitMs = 1000 * (Number(response.headers.get("Retry-After")) || 0);
    return { error: new IsrfError(code, detail, { status: response.status, fix, requestId }), waitMs };
  }
}

// crypto.randomUUID is for secure contexts only.
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
