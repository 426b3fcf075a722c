// What Element's libraries expect of Node.js.
export { Buffer } from "buffer";
export const process = { env: {} };
