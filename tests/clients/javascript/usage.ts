// What a shop's developer writes in TypeScript; tsc checks it against the package's types. Nothing here is run.

import { IsrfClient, IsrfError, prepare } from "isrf-client";
import type { Event, Imported, Recommendations } from "isrf-client/types";

const isrf = new IsrfClient("http://127.0.0.1:8000", { apiKey: null, timeoutMs: 400, bulk: { tries: 2 } });
const signal = AbortSignal.timeout(500);

export async function shop(userId: string): Promise<string[]> {
  const answer: Recommendations = await isrf.recommend(userId, { n: 5, exclude: [7, 8n, "x"], category: null, signal });
  const session = await isrf.recommendSession([7, "x"], { user_id: 7, context: { theme: "red" } });
  const many: Recommendations[] = await isrf.recommendMany([userId, 7], { explain: true });
  const version: number = (await isrf.putPlacement("home", { kind: "for-user", length: 8 })).version;
  await isrf.putItem("a", { price: null, title: "Tea" });
  const visit: Event = { session_id: "0123456789abcdef", item_id: 7 };
  const taken: boolean = isrf.sendBeacon("0123456789abcdef", [{ item_id: 7, event: "view" }]);
  const event: Event = { user_id: 7, item_id: "x", event: undefined, timestamp: new Date() };
  const id: string = prepare([event, visit])[0].event_id;
  const report: Imported = await isrf.importEvents([event]);
  for await (const line of isrf.exportItems({ signal })) console.log(line.item_id);
  try {
    await isrf.interactions([event]);
  } catch (error) {
    if (error instanceof IsrfError) console.log(error.code, error.fix, error.events[0].event_id);
  }
  return [...answer.items, ...session.items, ...many[0].items].map((one) => one.item_id + id + version + report.lines + taken);
}

export async function mistakes(): Promise<void> {
  // @ts-expect-error an unknown option
  await isrf.popular({ count: 5 });
  // @ts-expect-error an option of another type
  await isrf.popular({ n: "5" });
  // @ts-expect-error neither a user nor a session
  await isrf.interactions([{ item_id: "x" }]);
  // @ts-expect-error a beacon names no user
  isrf.sendBeacon("0123456789abcdef", [{ user_id: "x", item_id: "x", event: "view" }]);
  // @ts-expect-error no item_id
  await isrf.interactions([{ user_id: "x" }]);
  // @ts-expect-error no such kind
  await isrf.putPlacement("home", { kind: "populer" });
  // @ts-expect-error no such field of an answer
  (await isrf.popular()).products;
  // @ts-expect-error no such option of the client
  new IsrfClient("", { timeout: 5 });
}
