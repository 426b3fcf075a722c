// The second half of the conversation: a Matrix user and an IRC user in one
// channel.

import { arrived, chapter, note, said } from "./conversation.js";

const seconds = 30;

/**
 * Alice logs in to IRC through the bridge's bot, joins the channel where Ivy
 * is, and they talk.
 *
 * @param {import("./matrix.js").Person} alice
 * @param {import("./irc.js").IRCClient} ivy
 * @param {{bot: string, nick: string, channel: string}} names the bot's user
 *   ID, the nick that alice takes and the channel
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
    await talk.toIRC("See you in the kitchen.");
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
