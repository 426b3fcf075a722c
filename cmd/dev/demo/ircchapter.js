// The second half of the conversation: a Matrix user and an IRC user in one
// channel.

import { arrived, chapter, note, said } from "./conversation.js";

const seconds = 30;

/**
 * Alice logs in to IRC through the bridge's bot, joins the channel where Ivy
 * is, and they talk. The answer is the ID of the channel's room.
 *
 * @param {import("./matrix.js").Person} alice
 * @param {import("./irc.js").IRCClient} ivy
 * @param {{bot: string, nick: string, channel: string}} names the bot's user
 *   ID, the nick that alice takes and the channel
 * @returns {Promise<string>}
 */
export async function talkIRC(alice, ivy, { bot, nick, channel }) {
    chapter(`Alice joins ${channel} on IRC, where Ivy is`);
    const management = await alice.createDirectRoom(bot);
    await alice.meets(bot, management);
    note("matrix", `alice opens a chat with ${bot}`);
    await ask(alice, bot, management, "login", /nick on/);
    await ask(alice, bot, management, nick, /account/);
    await ask(alice, bot, management, "-", new RegExp(`You are ${nick} on`)); // no account
    await ask(alice, bot, management, `join ${channel}`, new RegExp(`You are in.*${channel}`));
    const portal = await alice.acceptInviteWhere(`the room of ${channel}`, (room) => room.name.includes(channel));
    await ivy.line(seconds, `ivy sees ${nick} join ${channel}`, (l) => l.command === "JOIN" && l.source === nick);
    arrived("irc", "ivy", `sees ${nick} join; in Matrix the channel is the room ${portal}`);

    const talk = new Talk(alice, ivy, nick, portal, channel);
    await talk.fromIRC("Hello Matrix! Ivy here, on plain old IRC.");
    await talk.toIRC("Hi Ivy! I type this in a Matrix client. Grüße, 你好, 🎉");
    await talk.actionFromIRC("waves");
    await talk.actionToIRC("waves back");
    await talk.toIRC("That was it already. One more moment.");
    return portal;
}

/**
 * Bob, who does not want a nick of his own, takes part in the channel through
 * the login that the bridge has for such guests.
 *
 * @param {import("./matrix.js").Person} bob
 * @param {import("./irc.js").IRCClient} ivy
 * @param {{bot: string, guests: string, channel: string, portal: string}} names
 *   the bot's user ID, the nick of that login, the channel and its room
 */
export async function talkAsGuest(bob, ivy, { bot, guests, channel, portal }) {
    chapter("Bob comes along without a nick of his own");
    const management = await bob.createDirectRoom(bot);
    await bob.meets(bot, management);
    await ask(bob, bot, management, `join ${channel}`, new RegExp(`You are in.*${channel}`));
    await bob.acceptInvite(portal);

    const question = "May I talk, too?";
    said("matrix", bob.name, channel, question);
    await bob.say(portal, question);
    const line = await ivy.line(seconds, `ivy sees bob's "${question}", through ${guests}`, (l) =>
        l.command === "PRIVMSG" && l.source === guests && l.params[0] === channel &&
        l.params[1].includes(bob.name) && l.params[1].endsWith(question));
    arrived("irc", ivy.nick, `sees it, from ${guests}: ${line.params[1]}`);

    const answer = "Of course you may, Bob.";
    said("irc", ivy.nick, channel, answer);
    ivy.say(channel, answer);
    await bob.sees(portal, `ivy's "${answer}"`, (e) => e.getContent().body === answer);
    arrived("matrix", bob.name, "sees it");
}

// ask says something to the bot and waits for the answer.
async function ask(person, bot, room, text, answer) {
    said("matrix", person.name, bot, text);
    await person.say(room, text);
    const event = await person.sees(room, `the bot's answer ${answer} to "${text}"`, (e) =>
        e.getSender() === bot && answer.test(e.getContent().body));
    said("matrix", bot, person.name, event.getContent().body.split("\n")[0]);
}

// Talk is a channel and the room that it is in Matrix.
class Talk {
    constructor(alice, ivy, nick, portal, channel) {
        Object.assign(this, { alice, ivy, nick, portal, channel });
    }

    async fromIRC(text) {
        said("irc", this.ivy.nick, this.channel, text);
        this.ivy.say(this.channel, text);
        await this.#aliceSees("m.text", text);
    }

    async actionFromIRC(text) {
        said("irc", this.ivy.nick, this.channel, `* ${text}`);
        this.ivy.act(this.channel, text);
        await this.#aliceSees("m.emote", text);
    }

    async toIRC(text) {
        said("matrix", this.alice.name, this.channel, text);
        await this.alice.say(this.portal, text);
        await this.#ivySees(text, text);
    }

    async actionToIRC(text) {
        said("matrix", this.alice.name, this.channel, `* ${text}`);
        await this.alice.act(this.portal, text);
        await this.#ivySees(text, `\x01ACTION ${text}\x01`);
    }

    async #aliceSees(type, text) {
        const event = await this.alice.sees(this.portal, `ivy's "${text}" as ${type}`, (e) =>
            e.getContent().msgtype === type && e.getContent().body === text && e.getSender() !== this.alice.userID);
        arrived("matrix", this.alice.name, `sees it, from ${event.getSender()}`);
    }

    async #ivySees(text, line) {
        await this.ivy.line(seconds, `ivy sees ${this.nick}'s "${text}"`, (l) =>
            l.command === "PRIVMSG" && l.source === this.nick && l.params[0] === this.channel && l.params[1] === line);
        arrived("irc", this.ivy.nick, `sees it, from ${this.nick}`);
    }
}
