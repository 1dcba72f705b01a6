export { IsrfClient } from "./client.js";
export { IsrfError } from "./errors.js";
export { prepare } from "./events.js";
