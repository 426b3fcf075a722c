// A Matrix user and a WhatsApp user in a private chat.

import { chapter, note, said } from "./conversation.js";
import { Talk, meetBot } from "./talk.js";

const bot = "@whatsappbot:localhost";

/**
 * Alice links her WhatsApp account by scanning a QR code with her phone; Wanda
 * writes to her, and they talk.
 *
 * @param {import("./matrix.js").Person} alice
 * @param {{wanda: import("./talk.js").Friend, scan: (code: string) => void}} whatsapp
 * @returns {Promise<Talk>}
 */
export async function talkWhatsApp(alice, { wanda, scan }) {
    chapter("Alice links WhatsApp, where Wanda is");
    const management = await meetBot(alice, bot);
    said("matrix", alice.name, bot, "login qr");
    await alice.say(management, "login qr");
    const code = await alice.sees(management, "a QR code", (e) => e.getSender() === bot && e.getContent().msgtype === "m.image");
    const { bytes } = await alice.openPicture(code);
    said("matrix", bot, alice.name, `[QR code, a picture of ${bytes.length} bytes]`);
    scan(code.getContent().body);
    note("whatsapp", "alice's phone scans it");
    const linked = await alice.sees(management, "that the account is linked", (e) => /You are linked/.test(e.getContent().body));
    said("matrix", bot, alice.name, linked.getContent().body.split("\n")[0]);

    const talk = await Talk.begin(alice, wanda, "Hi Alice! Is that you, in Matrix?");
    await talk.say("It is. My phone is in the other room. 📱");
    await talk.look("cat.png");
    await talk.show("dog.png");
    return talk;
}
