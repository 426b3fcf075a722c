// The WhatsApp side: a server that speaks WhatsApp's protocol, since WhatsApp's
// own can not be had, and the phones of Alice and Wanda.

import { Actor } from "./actor.js";
import { build } from "./switchboard.js";

/**
 * Starts the server and the phones.
 *
 * @returns {Promise<{server: string, wanda: import("./talk.js").Friend, scan: (code: string) => void}>}
 *   server is how the bridge finds it; scan shows a QR code to Alice's phone
 */
export async function startWhatsApp() {
    const phones = new Actor("the phones", await build("phones", "./cmd/dev/demo/phones"), []);
    const { server } = await phones.tells("the WhatsApp server runs", (told) => told.server);
    return { server, wanda: phones.friend("wanda", "whatsapp"), scan: (code) => phones.do({ scan: code }) };
}
