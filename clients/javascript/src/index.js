/**
 * A client of the ISRF recommendation service for browsers and Node 18+: bounded in time, with safe retries, and typed.
 *
 *   const isrf = new IsrfClient("http://127.0.0.1:8000");
 *   const answer = await isrf.recommend("shopper-0393", { n: 5, explain: true });
 *   await isrf.interactions([{ user_id: "shopper-0393", item_id: answer.items[0].item_id, event: "view" }]);
 *
 * @module
 */

export { IsrfClient } from "./client.js";
export { IsrfError } from "./errors.js";
export { prepare } from "./events.js";
