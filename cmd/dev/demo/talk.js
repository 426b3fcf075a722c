// How Alice talks with somebody on another network, whichever it is.

import { picture } from "./attachment.js";
import { arrived, note, said } from "./conversation.js";

/**
 * Somebody on another network.
 *
 * @typedef {object} Friend
 * @property {string} name
 * @property {string} network as it stands at the margin
 * @property {(text: string) => void} say says something to Alice
 * @property {(bytes: Uint8Array) => Promise<string | void>} show sends her a
 *   picture; the answer is its address if that is all that the network carries
 * @property {(text: string) => Promise<string>} sees waits for a text of hers;
 *   the answer is how it came
 * @property {() => Promise<{bytes: Uint8Array, how: string}>} opens waits for a
 *   picture of hers
 */

/**
 * Says something to a bridge's bot and waits for the answer.
 *
 * @param {import("./matrix.js").Person} person
 * @param {string} bot user ID
 * @param {string} room
 * @param {string} text
 * @param {RegExp} answer
 * @param {string} shown what to print of a text that is secret
 */
export async function ask(person, bot, room, text, answer, shown = text) {
    said("matrix", person.name, bot, shown);
    await person.say(room, text);
    const event = await person.sees(room, `the bot's answer ${answer} to "${shown}"`, (e) =>
        e.getSender() === bot && answer.test(e.getContent().body));
    said("matrix", bot, person.name, event.getContent().body.split("\n")[0]);
}

/**
 * Opens a chat with a bridge's bot.
 *
 * @returns {Promise<string>} the room's ID
 */
export async function meetBot(person, bot) {
    const room = await person.createDirectRoom(bot);
    await person.meets(bot, room);
    note("matrix", `${person.name} opens a chat with ${bot}`);
    return room;
}

/** A friend and the room in which Alice meets them. */
export class Talk {
    /**
     * @param {import("./matrix.js").Person} alice
     * @param {Friend} friend
     * @param {string} room ID
     * @param {string} where a channel, or the friend's name
     */
    constructor(alice, friend, room, where) {
        Object.assign(this, { alice, friend, room, where });
    }

    /**
     * The friend writes to Alice for the first time, by which a room appears.
     *
     * @returns {Promise<Talk>}
     */
    static async begin(alice, friend, text) {
        said(friend.network, friend.name, alice.name, text);
        friend.say(text);
        const event = await alice.seesAnywhere(`${friend.name}'s "${text}"`, (e) => e.getContent().body === text);
        arrived("matrix", alice.name, `sees it, from ${event.getSender()} in the new room ${event.getRoomId()}`);
        return new Talk(alice, friend, event.getRoomId(), friend.name);
    }

    /** The friend says something, and Alice sees it. */
    async hear(text) {
        const { alice, friend, room } = this;
        said(friend.network, friend.name, this.#place(friend), text);
        friend.say(text);
        const event = await alice.sees(room, `${friend.name}'s "${text}"`, (e) =>
            e.getContent().body === text && e.getSender() !== alice.userID);
        arrived("matrix", alice.name, `sees it, from ${event.getSender()}`);
    }

    // place is where somebody speaks: to the other, or into the channel.
    #place(speaker) {
        return speaker === this.friend && this.where === this.friend.name ? this.alice.name : this.where;
    }

    /** Alice says something, and the friend sees it. */
    async say(text) {
        const { alice, friend, room } = this;
        said("matrix", alice.name, this.where, text);
        await alice.say(room, text);
        arrived(friend.network, friend.name, `sees it, ${await friend.sees(text)}`);
    }

    /** The friend sends a picture, and Alice opens it. */
    async look(name) {
        const { alice, friend, room } = this;
        const bytes = picture();
        said(friend.network, friend.name, this.#place(friend), `[${name}, ${bytes.length} bytes]`);
        const link = await friend.show(bytes);
        const event = await alice.sees(room, `${friend.name}'s picture`, (e) => e.getSender() !== alice.userID &&
            (link ? e.getContent().body === link : e.getContent().msgtype === "m.image"));
        const shown = link ? await download(link) : (await alice.openPicture(event)).bytes;
        compare(bytes, shown, `${friend.name}'s picture`);
        arrived("matrix", alice.name, `${link ? `follows the link ${link}` : "opens the picture"}: the same ${shown.length} bytes`);
    }

    /** Alice sends a picture, and the friend opens it. */
    async show(name) {
        const { alice, friend, room } = this;
        const bytes = picture();
        said("matrix", alice.name, this.where, `[${name}, ${bytes.length} bytes]`);
        await alice.sendPicture(room, name, bytes);
        const { bytes: shown, how } = await friend.opens();
        compare(bytes, shown, "alice's picture");
        arrived(friend.network, friend.name, `${how}: the same ${shown.length} bytes`);
    }
}

/** Fetches a file from the web. */
export async function download(url) {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`${url}: ${answer.status} ${await answer.text()}`);
    return new Uint8Array(await answer.arrayBuffer());
}

function compare(sent, shown, what) {
    if (!Buffer.from(sent).equals(shown)) throw new Error(`${what} arrived with other bytes`);
}
