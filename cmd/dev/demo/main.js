// A conversation through a running Switchboard, with real clients: two people
// in an encrypted room, on old and new devices, and one of them with people on
// IRC, XMPP and WhatsApp. It ends with status 0 only if every message was seen at
// the other end.

import "./quiet.js";

import { talkOpenly } from "./boardchapter.js";
import { arrived, chapter, note } from "./conversation.js";
import { addDevices, sleepAndWake } from "./deviceschapter.js";
import { Missing } from "./expect.js";
import { IRCClient, startIRCServer } from "./irc.js";
import { talkAsGuest, talkIRC } from "./ircchapter.js";
import { Person } from "./matrix.js";
import { talkEncrypted } from "./matrixchapter.js";
import { cleanUp, lastWords } from "./process.js";
import { Switchboard } from "./switchboard.js";
import { startWhatsApp } from "./whatsapp.js";
import { talkWhatsApp } from "./whatsappchapter.js";
import { createXMPPAccount, startXMPPServer, startXenia } from "./xmpp.js";
import { talkXMPP } from "./xmppchapter.js";

const channel = "#demo";
const people = [];
const ivy = new IRCClient("ivy");

async function converse() {
    note("demo", "On the left is the network, then who says what to whom, or where. A ✓ says that it was");
    note("demo", "really seen at the other end, by the client of whoever is there.");

    chapter("The servers start");
    const irc = await startIRCServer();
    note("irc", `InspIRCd listens on port ${irc.port}`);
    await ivy.connect(irc.port);
    await ivy.join(channel);
    note("irc", `ivy is in ${channel}`);
    const xmpp = await startXMPPServer();
    note("xmpp", `Prosody listens on port ${xmpp.port}`);
    const account = await createXMPPAccount("alice");
    const xenia = await startXenia(xmpp, account.address);
    note("xmpp", "xenia is online");
    const whatsapp = await startWhatsApp();
    note("whatsapp", "a server that speaks WhatsApp's protocol runs, and the phones of alice and wanda are online");
    const switchboard = new Switchboard();
    await switchboard.start({ irc, xmpp, whatsapp });
    note("demo", `Switchboard serves ${switchboard.url} and printed a token for the first account`);

    chapter("Two people register");
    const alice = await moveIn("alice", switchboard, switchboard.firstToken);
    const bob = await moveIn("bob", switchboard, await switchboard.createToken());

    const kitchen = await talkEncrypted(alice, bob);
    await addDevices(alice, bob, kitchen, "What a sunset! Thank you.");
    await talkOpenly(alice, bob);
    await sleepAndWake(await moveIn("carol", switchboard, await switchboard.createToken()), bob);
    const onIRC = await talkIRC(alice, ivy, { nick: "alice", channel });
    await talkAsGuest(bob, ivy, { channel, portal: onIRC.room, guests: switchboard.guests });
    const onXMPP = await talkXMPP(alice, xenia, account);
    const onWhatsApp = await talkWhatsApp(alice, whatsapp);

    chapter("One person, one app, three networks");
    await onIRC.hear("Picnic at the lake on Saturday. Who comes?");
    await onXMPP.say("Ivy asks on IRC: a picnic at the lake on Saturday?");
    await onXMPP.hear("Yes! I bring strawberries. 🍓");
    await onWhatsApp.say("Picnic on Saturday, with strawberries from XMPP. Will you come?");
    await onWhatsApp.hear("With pleasure. I bring the cake. 🍰");
    await onIRC.say("Xenia brings strawberries and Wanda a cake. See you on Saturday, Ivy!");
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
