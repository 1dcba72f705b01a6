/**
 * The types of the service's requests and answers, from its OpenAPI document (`types/openapi.d.ts`). No code.
 *
 * @import { components, paths } from "../types/openapi.js"
 */

/** @typedef {components["schemas"]} Schemas */

/** @typedef {string | number | bigint} Id The shop's own id; an integer is sent as its decimal text. */
/** @typedef {"user_id" | "session_id" | "item_id" | "event_id"} IdName */
/** @typedef {"exclude" | "session" | "history" | "candidates" | "users" | "cart"} IdListName */

/**
 * What a caller may give for fields of the service: undefined and null are not sent, integers are ids.
 *
 * @template T
 * @typedef {{ [K in keyof T]?: (K extends IdName ? Id : K extends IdListName ? readonly Id[] : T[K]) | null }} Given
 */

/** @typedef {{ signal?: AbortSignal | null }} CallOptions Ends the call with `client.aborted`. */
/** @typedef {{ context?: Record<string, string> | null }} Context Texts that `filter` reads as `context.NAME`. */

/** @typedef {NonNullable<paths["/recommend/{user_id}"]["get"]["parameters"]["query"]>} UserQuery */
/** @typedef {NonNullable<paths["/similar/{item_id}"]["get"]["parameters"]["query"]>} SimilarQuery */
/** @typedef {NonNullable<paths["/popular"]["get"]["parameters"]["query"]>} PopularQuery */
/** @typedef {NonNullable<paths["/placements/{placement}/items"]["get"]["parameters"]["query"]>} PageQuery */
/** @typedef {NonNullable<paths["/users/{user_id}"]["get"]["parameters"]["query"]>} UserStateQuery */
/** @typedef {NonNullable<paths["/users/{user_id}/affinities"]["get"]["parameters"]["query"]>} AffinitiesQuery */
/** @typedef {NonNullable<paths["/attributes"]["get"]["parameters"]["query"]>} AttributesQuery */
/** @typedef {NonNullable<paths["/placements/{placement}"]["put"]["parameters"]["query"]>} VersionQuery */

/** @typedef {Given<UserQuery> & Context & CallOptions} UserOptions */
/** @typedef {Given<SimilarQuery> & Context & CallOptions} SimilarOptions */
/** @typedef {Given<PopularQuery> & Context & CallOptions} PopularOptions */
/** @typedef {Given<PageQuery> & CallOptions} PlacementOptions */
/** @typedef {Given<UserStateQuery> & CallOptions} UserStateOptions */
/** @typedef {Given<AffinitiesQuery> & CallOptions} AffinitiesOptions */
/** @typedef {Given<AttributesQuery> & CallOptions} AttributesOptions */
/** @typedef {Given<VersionQuery> & CallOptions} VersionOptions */
/** @typedef {Given<Omit<Schemas["SessionRequest"], "history">> & CallOptions} SessionOptions */
/** @typedef {Given<Omit<Schemas["UsersRequest"], "users">> & CallOptions} ListOptions */
/** @typedef {Given<Omit<Schemas["RankRequest"], "candidates">> & CallOptions} RankOptions */
/** @typedef {Given<Omit<Schemas["PreviewRequest"], "placement">> & CallOptions} PreviewOptions */

/** @typedef {Given<Schemas["Placement"]> & Pick<Schemas["Placement"], "kind">} Placement */
/** @typedef {{ [K in keyof Schemas["ItemBody"]]?: Schemas["ItemBody"][K] | null }} ItemBody null removes a field. */

/** @typedef {{ user_id: Id, session_id?: Id | null } | { user_id?: null, session_id: Id }} EventOwner */
/**
 * One interaction of a user, or of the session of a visitor without an account. `timestamp`: seconds, or a Date. Give it where an event may wait before it is sent.
 *
 * @typedef {EventOwner & {
 *   item_id: Id, event?: string | null, timestamp?: number | Date | null, event_id?: Id | null,
 *   recommendation_id?: string | null
 * }} Event
 */
/**
 * @typedef {{
 *   user_id?: string, session_id?: string, item_id: string, event_id: string, event?: string, timestamp?: number,
 *   recommendation_id?: string
 * }} PreparedEvent
 */
/**
 * @typedef {{
 *   item_id: Id, event: string, event_id?: Id | null, recommendation_id?: string | null
 * }} BeaconEvent
 */
/** @typedef {Schemas["EventAnswer"]} Result */
/** @typedef {{ results: Result[], accepted: number, duplicates: number, refused: number }} InteractionsAnswer */

/** @typedef {Schemas["Recommendations"]} Recommendations */
/** @typedef {Schemas["SimilarItems"]} SimilarItems */
/** @typedef {Schemas["PopularItems"]} PopularItems */
/** @typedef {Schemas["RecommendedItem"]} RecommendedItem */
/** @typedef {Schemas["UserAnswer"]} UserAnswer */
/** @typedef {Schemas["AffinitiesAnswer"]} AffinitiesAnswer */
/** @typedef {Schemas["AttributesAnswer"]} AttributesAnswer */
/** @typedef {Schemas["ItemAnswer"]} ItemAnswer */
/** @typedef {Schemas["ItemChanged"]} ItemChanged */
/** @typedef {Schemas["PlacementItems"]} PlacementItems */
/** @typedef {Schemas["PlacementAnswer"]} PlacementAnswer */
/** @typedef {Schemas["PlacementList"]} PlacementList */
/** @typedef {Schemas["PlacementPreviewAnswer"]} PlacementPreviewAnswer */
/** @typedef {Schemas["Readiness"]} Readiness */
/** @typedef {Schemas["Reloaded"]} Reloaded */
/** @typedef {Schemas["Stats"]} Stats */
/** @typedef {Schemas["Fault"]} BadField */
/** @typedef {Omit<Schemas["Imported"], "meta">} Imported The outcome of an import, of all its requests together. */
/** @typedef {Record<string, any>} Line A record of an import or an export: one JSON object a line. */

/**
 * How long a call may take: `timeoutMs` of one try, `tries` of one request, `deadlineMs` of the whole call with all its
 * tries and pauses.
 *
 * @typedef {{ timeoutMs: number, tries: number, deadlineMs: number }} Patience
 */
/**
 * @typedef {Partial<Patience> & {
 *   apiKey?: string | null, fetch?: typeof globalThis.fetch | null, bulk?: Partial<Patience> | null
 * }} ClientOptions
 */

export {};
