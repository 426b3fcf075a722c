// Two Matrix users and an IRC user in one channel.

import { arrived, chapter, said } from "./conversation.js";
import { Talk, ask, download, meetBot } from "./talk.js";

const bot = "@ircbot:localhost";

/**
 * Ivy as a friend, who is in a channel with somebody called nick.
 *
 * @param {import("./irc.js").IRCClient} ivy
 * @returns {import("./talk.js").Friend}
 */
function friend(ivy, nick, channel) {
    const line = (what, fits) => ivy.line(`ivy sees ${what} from ${nick}`, (l) =>
        l.command === "PRIVMSG" && l.source === nick && l.params[0] === channel && fits(l.params[1]));
    return {
        name: ivy.nick,
        network: "irc",
        say: (text) => ivy.say(channel, text),
        show: async (bytes) => {
            const link = await ivy.show(bytes);
            ivy.say(channel, link);
            return link;
        },
        sees: async (text) => {
            await line(`"${text}"`, (said) => said === text);
            return `from ${nick}`;
        },
        opens: async () => {
            const address = /https?:\/\/\S+\/media\/\S+/;
            const { params } = await line("a link to a picture", (said) => address.test(said));
            const [link] = params[1].match(address);
            return { bytes: await download(link), how: `follows the link ${link.slice(0, 60)}…` };
        },
    };
}

/**
 * Alice logs in to IRC through the bridge's bot, joins the channel where Ivy
 * is, and they talk.
 *
 * @param {import("./matrix.js").Person} alice
 * @param {import("./irc.js").IRCClient} ivy
 * @param {{nick: string, channel: string}} names the nick that alice takes
 * @returns {Promise<Talk>}
 */
export async function talkIRC(alice, ivy, { nick, channel }) {
    chapter(`Alice joins ${channel} on IRC, where Ivy is`);
    const management = await meetBot(alice, bot);
    await ask(alice, bot, management, "login", /nick on/);
    await ask(alice, bot, management, nick, /account/);
    await ask(alice, bot, management, "-", new RegExp(`You are ${nick} on`)); // no account
    await ask(alice, bot, management, `join ${channel}`, new RegExp(`You are in.*${channel}`));
    const portal = await alice.acceptInviteWhere(`the room of ${channel}`, (room) => room.name.includes(channel));
    await ivy.line(`ivy sees ${nick} join ${channel}`, (l) => l.command === "JOIN" && l.source === nick);
    arrived("irc", "ivy", `sees ${nick} join; in Matrix the channel is the room ${portal}`);

    const talk = new Talk(alice, friend(ivy, nick, channel), portal, channel);
    await talk.hear("Hello Matrix! Ivy here, on plain old IRC.");
    await talk.say("Hi Ivy! I type this in a Matrix client. Grüße, 你好, 🎉");
    await talk.look("lake.png");
    await talk.show("sunset.png");
    return talk;
}

/**
 * Bob, who does not want a nick of his own, takes part in the channel through
 * the login that the bridge has for such guests.
 *
 * @param {import("./matrix.js").Person} bob
 * @param {import("./irc.js").IRCClient} ivy
 * @param {{guests: string, channel: string, portal: string}} names the nick of
 *   that login, the channel and its room
 */
export async function talkAsGuest(bob, ivy, { guests, channel, portal }) {
    chapter("Bob comes along without a nick of his own");
    const management = await meetBot(bob, bot);
    await ask(bob, bot, management, `join ${channel}`, new RegExp(`You are in.*${channel}`));
    await bob.acceptInvite(portal);

    const question = "May I talk, too?";
    said("matrix", bob.name, channel, question);
    await bob.say(portal, question);
    const line = await ivy.line(`ivy sees bob's "${question}", through ${guests}`, (l) =>
        l.command === "PRIVMSG" && l.source === guests && l.params[0] === channel &&
        l.params[1].includes(bob.name) && l.params[1].endsWith(question));
    arrived("irc", ivy.nick, `sees it, from ${guests}: ${line.params[1]}`);

    const answer = "Of course you may, Bob.";
    said("irc", ivy.nick, channel, answer);
    ivy.say(channel, answer);
    await bob.sees(portal, `ivy's "${answer}"`, (e) => e.getContent().body === answer);
    arrived("matrix", bob.name, "sees it");
}
