// A shop's calls through a client that openapi-fetch makes of the generated types; tsc checks every field of them.

import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

declare const process: { argv: string[] };
const [, , baseUrl = "", user_id = ""] = process.argv;
const isrf = createClient<paths>({ baseUrl });

const path = { user_id };
const first = await isrf.GET("/recommend/{user_id}", { params: { path, query: { n: 3, explain: true } } });
if (first.data === undefined) throw new Error(first.error.detail);
const recommendation_id: string = first.data.meta.recommendation_id;
const next = await isrf.GET("/recommend/{user_id}", { params: { path, query: { n: 3, offset: 3, recommendation_id } } });
const items = [...first.data.items, ...(next.data?.items ?? [])];

const events = items.slice(0, 1).map(({ item_id }) => ({ user_id, item_id, event: "view", recommendation_id }));
const accepted = await isrf.POST("/interactions", { body: { events } });
const placed = await isrf.PUT("/placements/{placement}", {
  params: { path: { placement: "typescript" } },
  body: { kind: "popular", rules: [{ at_most: { attribute: "brand", count: 1 } }] },
});
const refused = await isrf.GET("/popular", { params: { query: { n: 0 } } });

console.log(
  JSON.stringify({
    items: items.map((item) => item.item_id),
    reasons: first.data.items.every((item) => (item.reasons ?? []).length > 0),
    accepted: accepted.data?.accepted,
    version: placed.data?.version,
    code: refused.error?.code,
    fields: refused.error?.errors?.map((fault) => fault.where),
  }),
);
