// A Matrix user and an XMPP user in a private chat.

import { chapter } from "./conversation.js";
import { Talk, ask, meetBot } from "./talk.js";

const bot = "@xmppbot:localhost";

/**
 * Alice logs in to her XMPP account through the bridge's bot; Xenia writes to
 * her, and they talk.
 *
 * @param {import("./matrix.js").Person} alice
 * @param {import("./talk.js").Friend} xenia
 * @param {{address: string, password: string}} account of alice
 * @returns {Promise<Talk>}
 */
export async function talkXMPP(alice, xenia, { address, password }) {
    chapter("Alice logs in to XMPP, where Xenia is");
    const management = await meetBot(alice, bot);
    await ask(alice, bot, management, "login", /address/);
    await ask(alice, bot, management, address, /password/);
    await ask(alice, bot, management, password, new RegExp(`You are ${address}`), "[her password]");

    const talk = await Talk.begin(alice, xenia, "Hello Alice, welcome on XMPP!");
    await talk.say("Hi Xenia, nice to meet you. Ça va? 🌷");
    await talk.look("tulips.png");
    await talk.show("roses.png");
    return talk;
}
