/** The calls of the service. */

import { sendBeacon } from "./beacon.js";
import { exportLines, importRecords } from "./bulk.js";
import { unreadable } from "./errors.js";
import { postEvents, preparedEvent } from "./events.js";
import { Requests } from "./requests.js";
import { given, idTexts, known, object, recordOf, segment } from "./values.js";

/**
 * @import * as types from "./types.js"
 */

const MAX_USERS = 256; // of one request
const MOST_ITEMS = 12_800; // of all lists of a request together
const MOST_EXPLAINED = 1000; // the same with reasons
const USUAL_N = 10;
const PLACEMENT = 'Give an object, as { kind: "for-user" }.';

/**
 * Every failure is an `IsrfError`. What is undefined or null is not sent; what JSON cannot hold is refused.
 *
 * A key can read and write every user's data: do not send one to browsers, call through your own backend.
 */
export class IsrfClient {
  /** @type {Requests} */
  #requests;

  /**
   * `timeoutMs` of one try, `tries` of one request, `deadlineMs` of a whole call: by default 1 s, 2 and 2 s for a read,
   * and 5 s, 6 and 30 s for a write; `bulk` has those of imports and exports, 60 s, 6 and an hour.
   *
   * @param {string} [baseUrl] nothing on a page of the service itself
   * @param {types.ClientOptions | null} [options]
   */
  constructor(baseUrl = "", options = {}) {
    this.#requests = new Requests(baseUrl, options ?? {});
  }

  /**
   * Items for a user; popular items for an unknown user.
   *
   * @param {types.Id} userId
   * @param {types.UserOptions | null} [options]
   * @returns {Promise<types.Recommendations>}
   */
  async recommend(userId, options) {
    return this.get(`/recommend/${segment(userId, "userId")}`, "items", options);
  }

  /**
   * Items for an anonymous session, from its item_ids, oldest first.
   *
   * @param {readonly types.Id[]} history
   * @param {types.SessionOptions | null} [options]
   * @returns {Promise<types.Recommendations>}
   */
  async recommendSession(history, options) {
    return this.post("/recommend", { history: idTexts(history, "history") }, "items", options);
  }

  /**
   * An answer for each user; any number of users, in parts that share the time of a write.
   *
   * @param {readonly types.Id[]} userIds
   * @param {types.ListOptions | null} [options]
   * @returns {Promise<types.Recommendations[]>}
   */
  async recommendMany(userIds, options) {
    const users = idTexts(userIds, "userIds");
    const { signal, fields } = split(options);
    const patience = this.#requests.writes;
    const end = performance.now() + patience.deadlineMs;
    const most = fields.explain ? MOST_EXPLAINED : MOST_ITEMS;
    const n = Number.isInteger(fields.n ?? USUAL_N) ? Math.max(1, fields.n ?? USUAL_N) : USUAL_N;
    const together = Math.min(MAX_USERS, Math.max(1, Math.floor(most / n)));
    /** @type {types.Recommendations[]} */
    const found = [];
    for (let start = 0; start < users.length; start += together) {
      const part = users.slice(start, start + together);
      const text = JSON.stringify(given({ users: part, ...fields }));
      const wanted = { text, field: "answers", patience, end, signal };
      const { answers } = await this.#requests.send("POST", "/recommend", wanted);
      if (answers.length !== part.length) throw unreadable(`${answers.length} answers for ${part.length} users`);
      found.push(...answers);
    }
    return found;
  }

  /**
   * Ranks candidates for a user or a history.
   *
   * @param {readonly types.Id[]} candidates
   * @param {types.RankOptions | null} [options]
   * @returns {Promise<types.Recommendations>}
   */
  async rank(candidates, options) {
    return this.post("/rank", { candidates: idTexts(candidates, "candidates") }, "items", options);
  }

  /**
   * Items like this one.
   *
   * @param {types.Id} itemId
   * @param {types.SimilarOptions | null} [options]
   * @returns {Promise<types.SimilarItems>}
   */
  async similar(itemId, options) {
    return this.get(`/similar/${segment(itemId, "itemId")}`, "items", options);
  }

  /**
   * The most popular items.
   *
   * @param {types.PopularOptions | null} [options]
   * @returns {Promise<types.PopularItems>}
   */
  async popular(options) {
    return this.get("/popular", "items", options);
  }

  /**
   * A user's state, and their interests in words.
   *
   * @param {types.Id} userId
   * @param {types.UserStateOptions | null} [options]
   * @returns {Promise<types.UserAnswer>}
   */
  async user(userId, options) {
    return this.get(`/users/${segment(userId, "userId")}`, "history", options);
  }

  /**
   * Erases everything about a user.
   *
   * @param {types.Id} userId
   * @param {types.CallOptions | null} [options]
   * @returns {Promise<null>}
   */
  async erase(userId, options) {
    return this.#change("DELETE", `/users/${segment(userId, "userId")}`, { options });
  }

  /**
   * A user's attributes, ranked with their evidence.
   *
   * @param {types.Id} userId
   * @param {types.AffinitiesOptions | null} [options]
   * @returns {Promise<types.AffinitiesAnswer>}
   */
  async affinities(userId, options) {
    return this.get(`/users/${segment(userId, "userId")}/affinities`, "affinities", options, "object");
  }

  /**
   * The attributes that conditions may name.
   *
   * @param {types.AttributesOptions | null} [options]
   * @returns {Promise<types.AttributesAnswer>}
   */
  async attributes(options) {
    return this.get("/attributes", "attributes", options);
  }

  /**
   * An item as it is now.
   *
   * @param {types.Id} itemId
   * @param {types.CallOptions | null} [options]
   * @returns {Promise<types.ItemAnswer>}
   */
  async item(itemId, options) {
    return this.get(itemPath(itemId), "item", options, "object");
  }

  /**
   * Adds or changes an item; the change counts from the next answer on. A field that is null is removed.
   *
   * @param {types.Id} itemId
   * @param {types.ItemBody} item
   * @param {types.CallOptions | null} [options]
   * @returns {Promise<types.ItemChanged>}
   */
  async putItem(itemId, item, options) {
    return this.#change("PUT", itemPath(itemId), { body: recordOf(item, "item"), field: "item", options });
  }

  /**
   * Hides an item from recommendations; `putItem` brings it back.
   *
   * @param {types.Id} itemId
   * @param {types.CallOptions | null} [options]
   * @returns {Promise<null>}
   */
  async hideItem(itemId, options) {
    return this.#change("DELETE", itemPath(itemId), { options });
  }

  /**
   * The items of a placement, for the user_id, item_id, cart and session of a page.
   *
   * @param {string} name
   * @param {types.PlacementOptions | null} [options]
   * @returns {Promise<types.PlacementItems>}
   */
  async placementItems(name, options) {
    return this.get(`${placementPath(name)}/items`, "items", options);
  }

  /**
   * All placements.
   *
   * @param {types.CallOptions | null} [options]
   * @returns {Promise<types.PlacementList>}
   */
  async placements(options) {
    return this.get("/placements", "placements", options);
  }

  /**
   * A placement as it counts now.
   *
   * @param {string} name
   * @param {types.CallOptions | null} [options]
   * @returns {Promise<types.PlacementAnswer>}
   */
  async placement(name, options) {
    return this.get(placementPath(name), "placement", options, "object");
  }

  /**
   * Puts a placement as a whole. `expected_version` of the options: the stored version without which nothing is changed,
   * 0 for none. It needs a key of role admin, as the two calls below.
   *
   * @param {string} name
   * @param {types.Placement} placement
   * @param {types.VersionOptions | null} [options]
   * @returns {Promise<types.PlacementAnswer>}
   */
  async putPlacement(name, placement, options) {
    const body = given(object(placement, "placement", PLACEMENT));
    return this.#change("PUT", placementPath(name), { body, field: "placement", options });
  }

  /**
   * The list of a placement that is not put, beside the list as it is now; it changes nothing.
   *
   * @param {types.Placement} placement
   * @param {types.PreviewOptions | null} [options]
   * @returns {Promise<types.PlacementPreviewAnswer>}
   */
  async previewPlacement(placement, options) {
    const body = { placement: object(placement, "placement", PLACEMENT) };
    return this.post("/placements/preview", body, "after", options, "object");
  }

  /**
   * Removes a placement; `expected_version` as in `putPlacement`.
   *
   * @param {string} name
   * @param {types.VersionOptions | null} [options]
   * @returns {Promise<null>}
   */
  async deletePlacement(name, options) {
    return this.#change("DELETE", placementPath(name), { options });
  }

  /**
   * Posts any number of events. Every event has its id before the first try, so that none counts twice; an error has the
   * `events` to send again, with their ids.
   *
   * @param {readonly types.Event[]} events
   * @param {types.CallOptions | null} [options]
   * @returns {Promise<types.InteractionsAnswer>}
   */
  async interactions(events, options) {
    return postEvents(this.#requests, events, split(options).signal);
  }

  /**
   * Hands events of a page's own session to the browser, which sends them even while the page goes away. The client needs
   * a key of the role browser, which may be public. Nobody learns what became of the events.
   *
   * More than 100 events, or 60 KB, are several beacons, and the browser may take some of them alone. Give each event
   * an `event_id` of yours where you would hand them over again: those that were taken then count once.
   *
   * @param {string} sessionId 16 to 64 letters, digits, - and _, which the page makes once and keeps
   * @param {readonly types.BeaconEvent[]} events
   * @returns {boolean} whether the browser took all of them
   */
  sendBeacon(sessionId, events) {
    return sendBeacon(this.#requests, sessionId, events);
  }

  /**
   * Adds and changes any number of items, as `putItem` each; reads the iterable as it sends. An error has the `report` of
   * what was imported, and the `records` to send again.
   *
   * @param {Iterable<types.Line> | AsyncIterable<types.Line>} items
   * @param {types.CallOptions | null} [options]
   * @returns {Promise<types.Imported>}
   */
  async importItems(items, options) {
    return importRecords(this.#requests, "/import/items", items, recordOf, split(options).signal);
  }

  /**
   * Posts any number of events from an iterable, which it reads as it sends; `interactions` for a few.
   *
   * @param {Iterable<types.Event> | AsyncIterable<types.Event>} events
   * @param {types.CallOptions | null} [options]
   * @returns {Promise<types.Imported>}
   */
  async importEvents(events, options) {
    return importRecords(this.#requests, "/import/events", events, preparedEvent, split(options).signal);
  }

  /**
   * Imports users' state, as `exportUsers` yields it.
   *
   * @param {Iterable<types.Line> | AsyncIterable<types.Line>} users
   * @param {types.CallOptions | null} [options]
   * @returns {Promise<types.Imported>}
   */
  async importUsers(users, options) {
    return importRecords(this.#requests, "/import/users", users, recordOf, split(options).signal);
  }

  /**
   * Yields the whole catalogue as it is now. It needs a key of role admin, as every export.
   *
   * @param {types.CallOptions | null} [options]
   */
  exportItems(options) {
    return exportLines(this.#requests, "/export/items", split(options).signal);
  }

  /**
   * Yields the accepted events that the offline job has not used yet.
   *
   * @param {types.CallOptions | null} [options]
   */
  exportEvents(options) {
    return exportLines(this.#requests, "/export/events", split(options).signal);
  }

  /**
   * Yields users' state since the release; a user with much state has several lines.
   *
   * @param {types.CallOptions | null} [options]
   */
  exportUsers(options) {
    return exportLines(this.#requests, "/export/users", split(options).signal);
  }

  /**
   * Whether the service can recommend, and whether its store is reached.
   *
   * @param {types.CallOptions | null} [options]
   * @returns {Promise<types.Readiness>}
   */
  async ready(options) {
    return this.get("/readyz", "status", options, "text");
  }

  /**
   * Has the newest published release served now. It needs a key of role admin.
   *
   * @param {types.CallOptions | null} [options]
   * @returns {Promise<types.Reloaded>}
   */
  async reload(options) {
    return this.#change("POST", "/admin/reload", { field: "status", kind: "text", options });
  }

  /**
   * Counts of answers, shown items, clicks and purchases. It needs a key of role admin.
   *
   * @param {types.CallOptions | null} [options]
   * @returns {Promise<types.Stats>}
   */
  async stats(options) {
    return this.get("/admin/stats", "releases", options);
  }

  /**
   * A read of the service that has no method here; `field` is a list that its answer must have.
   *
   * @param {string} path
   * @param {string} field
   * @param {object | null} [options] its parameters, and `signal`
   * @param {"list" | "object" | "text"} [kind] of the field
   * @returns {Promise<any>}
   */
  async get(path, field, options, kind) {
    const { signal, fields } = split(options);
    return this.#requests.send("GET", path, { query: fields, field, kind, patience: this.#requests.reads, signal });
  }

  /**
   * The same with a body, of which `options` are a part.
   *
   * @param {string} path
   * @param {object} body
   * @param {string} field
   * @param {object | null} [options]
   * @param {"list" | "object" | "text"} [kind]
   * @returns {Promise<any>}
   */
  async post(path, body, field, options, kind) {
    const { signal, fields } = split(options);
    const text = JSON.stringify(given({ ...body, ...fields }));
    return this.#requests.send("POST", path, { text, field, kind, patience: this.#requests.reads, signal });
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {{ body?: object, field?: string, kind?: "object" | "text", options?: object | null }} change
   * @returns {Promise<any>}
   */
  async #change(method, path, { body, field, kind = "object", options }) {
    const { signal, fields } = split(options);
    const text = body === undefined ? undefined : JSON.stringify(body);
    const patience = this.#requests.writes;
    return this.#requests.send(method, path, { query: fields, text, field, kind, patience, signal });
  }
}

/** @param {types.Id} itemId */
const itemPath = (itemId) => `/items/${segment(itemId, "itemId")}`;

/** @param {string} name */
const placementPath = (name) => `/placements/${segment(name, "name")}`;

/**
 * The caller's signal, and the options that are sent.
 *
 * @param {object | null | undefined} options
 * @returns {{ signal: AbortSignal | undefined, fields: Record<string, any> }}
 */
function split(options) {
  const { signal, ...fields } = known(options);
  return { signal, fields };
}
