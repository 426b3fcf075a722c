// A conversation through a running Switchboard, with real clients: two people
// in an encrypted room, and one of them with an IRC user in a channel of a real
// IRC server. It ends with status 0 only if every message was seen at the other
// end.

import "./quiet.js";

import { arrived, chapter, note } from "./conversation.js";
import { Missing } from "./expect.js";
import { IRCClient, startIRCServer } from "./irc.js";
import { talkAsGuest, talkIRC } from "./ircchapter.js";
import { Person } from "./matrix.js";
import { talkEncrypted } from "./matrixchapter.js";
import { cleanUp, lastWords } from "./process.js";
import { Switchboard } from "./switchboard.js";

const channel = "#demo";
const people = [];
const ivy = new IRCClient("ivy");

async function converse() {
    chapter("The servers start");
    const irc = await startIRCServer();
    note("irc", `InspIRCd listens on port ${irc.port}`);
    await ivy.connect(irc.port);
    await ivy.join(channel);
    note("irc", `ivy is in ${channel}`);
    const switchboard = new Switchboard();
    await switchboard.start({ ircPort: irc.port });
    note("demo", `Switchboard serves ${switchboard.url} and printed a token for the first account`);

    chapter("Two people register");
    const alice = await moveIn("alice", switchboard, switchboard.firstToken);
    const bob = await moveIn("bob", switchboard, await switchboard.createToken());

    await talkEncrypted(alice, bob);
    const names = { bot: "@ircbot:localhost", nick: "alice", channel };
    const portal = await talkIRC(alice, ivy, names);
    await talkAsGuest(bob, ivy, { ...names, portal, guests: switchboard.guests });
}

// moveIn makes an account and starts its client.
async function moveIn(name, switchboard, token) {
    const person = new Person(name, switchboard.url);
    people.push(person);
    await person.register(token);
    await person.start();
    await person.secure();
    arrived("matrix", name, `has registered with a token, as ${person.userID}, and has keys`);
    return person;
}

let status = 1;
try {
    await converse();
    chapter("Every message was seen at the other end.");
    status = 0;
} catch (err) {
    process.stderr.write(`\n${lastWords()}\nThe demo failed: ${err instanceof Missing ? err.message : err.stack}\n`);
} finally {
    people.forEach((person) => person.stop());
    ivy.quit();
    await cleanUp();
}
process.exit(status);
