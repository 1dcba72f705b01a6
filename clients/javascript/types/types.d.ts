export type Schemas = components["schemas"];
/**
 * The shop's own id; an integer is sent as its decimal text.
 */
export type Id = string | number | bigint;
export type IdName = "user_id" | "session_id" | "item_id" | "event_id";
export type IdListName = "exclude" | "session" | "history" | "candidates" | "users" | "cart";
/**
 * What a caller may give for fields of the service: undefined and null are not sent, integers are ids.
 */
export type Given<T> = { [K in keyof T]?: (K extends IdName ? Id : K extends IdListName ? readonly Id[] : T[K]) | null; };
/**
 * Ends the call with `client.aborted`.
 */
export type CallOptions = {
    signal?: AbortSignal | null;
};
/**
 * Texts that `filter` reads as `context.NAME`.
 */
export type Context = {
    context?: Record<string, string> | null;
};
export type UserQuery = NonNullable<paths["/recommend/{user_id}"]["get"]["parameters"]["query"]>;
export type SimilarQuery = NonNullable<paths["/similar/{item_id}"]["get"]["parameters"]["query"]>;
export type PopularQuery = NonNullable<paths["/popular"]["get"]["parameters"]["query"]>;
export type PageQuery = NonNullable<paths["/placements/{placement}/items"]["get"]["parameters"]["query"]>;
export type UserStateQuery = NonNullable<paths["/users/{user_id}"]["get"]["parameters"]["query"]>;
export type AffinitiesQuery = NonNullable<paths["/users/{user_id}/affinities"]["get"]["parameters"]["query"]>;
export type AttributesQuery = NonNullable<paths["/attributes"]["get"]["parameters"]["query"]>;
export type VersionQuery = NonNullable<paths["/placements/{placement}"]["put"]["parameters"]["query"]>;
export type UserOptions = Given<UserQuery> & Context & CallOptions;
export type SimilarOptions = Given<SimilarQuery> & Context & CallOptions;
export type PopularOptions = Given<PopularQuery> & Context & CallOptions;
export type PlacementOptions = Given<PageQuery> & CallOptions;
export type UserStateOptions = Given<UserStateQuery> & CallOptions;
export type AffinitiesOptions = Given<AffinitiesQuery> & CallOptions;
export type AttributesOptions = Given<AttributesQuery> & CallOptions;
export type VersionOptions = Given<VersionQuery> & CallOptions;
export type SessionOptions = Given<Omit<Schemas["SessionRequest"], "history">> & CallOptions;
export type ListOptions = Given<Omit<Schemas["UsersRequest"], "users">> & CallOptions;
export type RankOptions = Given<Omit<Schemas["RankRequest"], "candidates">> & CallOptions;
export type PreviewOptions = Given<Omit<Schemas["PreviewRequest"], "placement">> & CallOptions;
export type Placement = Given<Schemas["Placement"]> & Pick<Schemas["Placement"], "kind">;
/**
 * null removes a field.
 */
export type ItemBody = { [K in keyof Schemas["ItemBody"]]?: Schemas["ItemBody"][K] | null; };
export type EventOwner = {
    user_id: Id;
    session_id?: Id | null;
} | {
    user_id?: null;
    session_id: Id;
};
/**
 * One interaction of a user, or of the session of a visitor without an account. `timestamp`: seconds, or a Date. Give it where an event may wait before it is sent.
 */
export type Event = EventOwner & {
    item_id: Id;
    event?: string | null;
    timestamp?: number | Date | null;
    event_id?: Id | null;
    recommendation_id?: string | null;
};
export type PreparedEvent = {
    user_id?: string;
    session_id?: string;
    item_id: string;
    event_id: string;
    event?: string;
    timestamp?: number;
    recommendation_id?: string;
};
export type BeaconEvent = {
    item_id: Id;
    event: string;
    event_id?: Id | null;
    recommendation_id?: string | null;
};
export type Result = Schemas["EventAnswer"];
export type InteractionsAnswer = {
    results: Result[];
    accepted: number;
    duplicates: number;
    refused: number;
};
export type Recommendations = Schemas["Recommendations"];
export type SimilarItems = Schemas["SimilarItems"];
export type PopularItems = Schemas["PopularItems"];
export type RecommendedItem = Schemas["RecommendedItem"];
export type UserAnswer = Schemas["UserAnswer"];
export type AffinitiesAnswer = Schemas["AffinitiesAnswer"];
export type AttributesAnswer = Schemas["AttributesAnswer"];
export type ItemAnswer = Schemas["ItemAnswer"];
export type ItemChanged = Schemas["ItemChanged"];
export type PlacementItems = Schemas["PlacementItems"];
export type PlacementAnswer = Schemas["PlacementAnswer"];
export type PlacementList = Schemas["PlacementList"];
export type PlacementPreviewAnswer = Schemas["PlacementPreviewAnswer"];
export type Readiness = Schemas["Readiness"];
export type Reloaded = Schemas["Reloaded"];
export type Stats = Schemas["Stats"];
export type BadField = Schemas["Fault"];
/**
 * The outcome of an import, of all its requests together.
 */
export type Imported = Omit<Schemas["Imported"], "meta">;
/**
 * A record of an import or an export: one JSON object a line.
 */
export type Line = Record<string, any>;
/**
 * How long a call may take: `timeoutMs` of one try, `tries` of one request, `deadlineMs` of the whole call with all its
 * tries and pauses.
 */
export type Patience = {
    timeoutMs: number;
    tries: number;
    deadlineMs: number;
};
export type ClientOptions = Partial<Patience> & {
    apiKey?: string | null;
    fetch?: typeof globalThis.fetch | null;
    bulk?: Partial<Patience> | null;
};
import type { components } from "../types/openapi.js";
import type { paths } from "../types/openapi.js";
