/**
 * Every failure is an `IsrfError`. What is undefined or null is not sent; what JSON cannot hold is refused.
 *
 * A key can read and write every user's data: do not send one to browsers, call through your own backend.
 */
export class IsrfClient {
    /**
     * `timeoutMs` of one try, `tries` of one request, `deadlineMs` of a whole call: by default 1 s, 2 and 2 s for a read,
     * and 5 s, 6 and 30 s for a write; `bulk` has those of imports and exports, 60 s, 6 and an hour.
     *
     * @param {string} [baseUrl] nothing on a page of the service itself
     * @param {types.ClientOptions | null} [options]
     */
    constructor(baseUrl?: string, options?: types.ClientOptions | null);
    /**
     * Items for a user; popular items for an unknown user.
     *
     * @param {types.Id} userId
     * @param {types.UserOptions | null} [options]
     * @returns {Promise<types.Recommendations>}
     */
    recommend(userId: types.Id, options?: types.UserOptions | null): Promise<types.Recommendations>;
    /**
     * Items for an anonymous session, from its item_ids, oldest first.
     *
     * @param {readonly types.Id[]} history
     * @param {types.SessionOptions | null} [options]
     * @returns {Promise<types.Recommendations>}
     */
    recommendSession(history: readonly types.Id[], options?: types.SessionOptions | null): Promise<types.Recommendations>;
    /**
     * An answer for each user; any number of users, in parts that share the time of a write.
     *
     * @param {readonly types.Id[]} userIds
     * @param {types.ListOptions | null} [options]
     * @returns {Promise<types.Recommendations[]>}
     */
    recommendMany(userIds: readonly types.Id[], options?: types.ListOptions | null): Promise<types.Recommendations[]>;
    /**
     * Ranks candidates for a user or a history.
     *
     * @param {readonly types.Id[]} candidates
     * @param {types.RankOptions | null} [options]
     * @returns {Promise<types.Recommendations>}
     */
    rank(candidates: readonly types.Id[], options?: types.RankOptions | null): Promise<types.Recommendations>;
    /**
     * Items like this one.
     *
     * @param {types.Id} itemId
     * @param {types.SimilarOptions | null} [options]
     * @returns {Promise<types.SimilarItems>}
     */
    similar(itemId: types.Id, options?: types.SimilarOptions | null): Promise<types.SimilarItems>;
    /**
     * The most popular items.
     *
     * @param {types.PopularOptions | null} [options]
     * @returns {Promise<types.PopularItems>}
     */
    popular(options?: types.PopularOptions | null): Promise<types.PopularItems>;
    /**
     * A user's state, and their interests in words.
     *
     * @param {types.Id} userId
     * @param {types.UserStateOptions | null} [options]
     * @returns {Promise<types.UserAnswer>}
     */
    user(userId: types.Id, options?: types.UserStateOptions | null): Promise<types.UserAnswer>;
    /**
     * Erases everything about a user.
     *
     * @param {types.Id} userId
     * @param {types.CallOptions | null} [options]
     * @returns {Promise<null>}
     */
    erase(userId: types.Id, options?: types.CallOptions | null): Promise<null>;
    /**
     * A user's attributes, ranked with their evidence.
     *
     * @param {types.Id} userId
     * @param {types.AffinitiesOptions | null} [options]
     * @returns {Promise<types.AffinitiesAnswer>}
     */
    affinities(userId: types.Id, options?: types.AffinitiesOptions | null): Promise<types.AffinitiesAnswer>;
    /**
     * The attributes that conditions may name.
     *
     * @param {types.AttributesOptions | null} [options]
     * @returns {Promise<types.AttributesAnswer>}
     */
    attributes(options?: types.AttributesOptions | null): Promise<types.AttributesAnswer>;
    /**
     * An item as it is now.
     *
     * @param {types.Id} itemId
     * @param {types.CallOptions | null} [options]
     * @returns {Promise<types.ItemAnswer>}
     */
    item(itemId: types.Id, options?: types.CallOptions | null): Promise<types.ItemAnswer>;
    /**
     * Adds or changes an item; the change counts from the next answer on. A field that is null is removed.
     *
     * @param {types.Id} itemId
     * @param {types.ItemBody} item
     * @param {types.CallOptions | null} [options]
     * @returns {Promise<types.ItemChanged>}
     */
    putItem(itemId: types.Id, item: types.ItemBody, options?: types.CallOptions | null): Promise<types.ItemChanged>;
    /**
     * Hides an item from recommendations; `putItem` brings it back.
     *
     * @param {types.Id} itemId
     * @param {types.CallOptions | null} [options]
     * @returns {Promise<null>}
     */
    hideItem(itemId: types.Id, options?: types.CallOptions | null): Promise<null>;
    /**
     * The items of a placement, for the user_id, item_id, cart and session of a page.
     *
     * @param {string} name
     * @param {types.PlacementOptions | null} [options]
     * @returns {Promise<types.PlacementItems>}
     */
    placementItems(name: string, options?: types.PlacementOptions | null): Promise<types.PlacementItems>;
    /**
     * All placements.
     *
     * @param {types.CallOptions | null} [options]
     * @returns {Promise<types.PlacementList>}
     */
    placements(options?: types.CallOptions | null): Promise<types.PlacementList>;
    /**
     * A placement as it counts now.
     *
     * @param {string} name
     * @param {types.CallOptions | null} [options]
     * @returns {Promise<types.PlacementAnswer>}
     */
    placement(name: string, options?: types.CallOptions | null): Promise<types.PlacementAnswer>;
    /**
     * Puts a placement as a whole. `expected_version` of the options: the stored version without which nothing is changed,
     * 0 for none. It needs a key of role admin, as the two calls below.
     *
     * @param {string} name
     * @param {types.Placement} placement
     * @param {types.VersionOptions | null} [options]
     * @returns {Promise<types.PlacementAnswer>}
     */
    putPlacement(name: string, placement: types.Placement, options?: types.VersionOptions | null): Promise<types.PlacementAnswer>;
    /**
     * The list of a placement that is not put, beside the list as it is now; it changes nothing.
     *
     * @param {types.Placement} placement
     * @param {types.PreviewOptions | null} [options]
     * @returns {Promise<types.PlacementPreviewAnswer>}
     */
    previewPlacement(placement: types.Placement, options?: types.PreviewOptions | null): Promise<types.PlacementPreviewAnswer>;
    /**
     * Removes a placement; `expected_version` as in `putPlacement`.
     *
     * @param {string} name
     * @param {types.VersionOptions | null} [options]
     * @returns {Promise<null>}
     */
    deletePlacement(name: string, options?: types.VersionOptions | null): Promise<null>;
    /**
     * Posts any number of events. Every event has its id before the first try, so that none counts twice; an error has the
     * `events` to send again, with their ids.
     *
     * @param {readonly types.Event[]} events
     * @param {types.CallOptions | null} [options]
     * @returns {Promise<types.InteractionsAnswer>}
     */
    interactions(events: readonly types.Event[], options?: types.CallOptions | null): Promise<types.InteractionsAnswer>;
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
    sendBeacon(sessionId: string, events: readonly types.BeaconEvent[]): boolean;
    /**
     * Adds and changes any number of items, as `putItem` each; reads the iterable as it sends. An error has the `report` of
     * what was imported, and the `records` to send again.
     *
     * @param {Iterable<types.Line> | AsyncIterable<types.Line>} items
     * @param {types.CallOptions | null} [options]
     * @returns {Promise<types.Imported>}
     */
    importItems(items: Iterable<types.Line> | AsyncIterable<types.Line>, options?: types.CallOptions | null): Promise<types.Imported>;
    /**
     * Posts any number of events from an iterable, which it reads as it sends; `interactions` for a few.
     *
     * @param {Iterable<types.Event> | AsyncIterable<types.Event>} events
     * @param {types.CallOptions | null} [options]
     * @returns {Promise<types.Imported>}
     */
    importEvents(events: Iterable<types.Event> | AsyncIterable<types.Event>, options?: types.CallOptions | null): Promise<types.Imported>;
    /**
     * Imports users' state, as `exportUsers` yields it.
     *
     * @param {Iterable<types.Line> | AsyncIterable<types.Line>} users
     * @param {types.CallOptions | null} [options]
     * @returns {Promise<types.Imported>}
     */
    importUsers(users: Iterable<types.Line> | AsyncIterable<types.Line>, options?: types.CallOptions | null): Promise<types.Imported>;
    /**
     * Yields the whole catalogue as it is now. It needs a key of role admin, as every export.
     *
     * @param {types.CallOptions | null} [options]
     */
    exportItems(options?: types.CallOptions | null): AsyncGenerator<types.Line, void, void>;
    /**
     * Yields the accepted events that the offline job has not used yet.
     *
     * @param {types.CallOptions | null} [options]
     */
    exportEvents(options?: types.CallOptions | null): AsyncGenerator<types.Line, void, void>;
    /**
     * Yields users' state since the release; a user with much state has several lines.
     *
     * @param {types.CallOptions | null} [options]
     */
    exportUsers(options?: types.CallOptions | null): AsyncGenerator<types.Line, void, void>;
    /**
     * Whether the service can recommend, and whether its store is reached.
     *
     * @param {types.CallOptions | null} [options]
     * @returns {Promise<types.Readiness>}
     */
    ready(options?: types.CallOptions | null): Promise<types.Readiness>;
    /**
     * Has the newest published release served now. It needs a key of role admin.
     *
     * @param {types.CallOptions | null} [options]
     * @returns {Promise<types.Reloaded>}
     */
    reload(options?: types.CallOptions | null): Promise<types.Reloaded>;
    /**
     * Counts of answers, shown items, clicks and purchases. It needs a key of role admin.
     *
     * @param {types.CallOptions | null} [options]
     * @returns {Promise<types.Stats>}
     */
    stats(options?: types.CallOptions | null): Promise<types.Stats>;
    /**
     * A read of the service that has no method here; `field` is a list that its answer must have.
     *
     * @param {string} path
     * @param {string} field
     * @param {object | null} [options] its parameters, and `signal`
     * @param {"list" | "object" | "text"} [kind] of the field
     * @returns {Promise<any>}
     */
    get(path: string, field: string, options?: object | null, kind?: "list" | "object" | "text"): Promise<any>;
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
    post(path: string, body: object, field: string, options?: object | null, kind?: "list" | "object" | "text"): Promise<any>;
    #private;
}
import type * as types from "./types.js";
