// A room without encryption, where the server can count, find and delay.

import { NotificationCountType } from "matrix-js-sdk";

import { arrived, chapter, note, said } from "./conversation.js";

const hour = 3_600_000;

/**
 * Bob and Alice use a room with a thread, the search and delayed events.
 *
 * @param {import("./matrix.js").Person} alice
 * @param {import("./matrix.js").Person} bob
 */
export async function talkOpenly(alice, bob) {
    chapter("A noticeboard: a thread, a search and messages for later");
    const room = await alice.createDirectRoom(bob.userID);
    await bob.acceptInvite(room);
    await alice.meets(bob.userID, room);
    await speakInThread(room, alice, bob);
    await search(room, alice, bob);
    await sendLater(room, alice, bob);
}

async function hears(room, person, text) {
    await person.sees(room, `"${text}"`, (e) => e.getContent().body === text);
    arrived("matrix", person.name, "sees it");
}

async function speakInThread(room, alice, bob) {
    said("matrix", "bob", "noticeboard", "Who feeds the cat tonight?");
    const root = await bob.say(room, "Who feeds the cat tonight?");
    await hears(room, alice, "Who feeds the cat tonight?");
    const unread = () => {
        const here = bob.client.getRoom(room);
        return [here.getRoomUnreadNotificationCount(NotificationCountType.Total), here.getThreadUnreadNotificationCount(root, NotificationCountType.Total)];
    };
    said("matrix", "alice", "the thread", "I do. What does she eat?");
    await alice.client.sendTextMessage(room, root, "I do. What does she eat?").catch((err) => {
        if (!err.message.includes("not a local echo")) throw err; // the library stumbles when /sync was faster than the answer
    });
    await bob.until("the thread has one unread message, and the room none", () => unread().join() === "0,1");
    arrived("matrix", "bob", "has one unread message, in the thread");

    const answer = () => bob.client.getRoom(room).getThread(root)?.events.find((e) => e.getSender() === alice.userID);
    await bob.until("the thread has alice's answer", () => answer() !== undefined);
    await bob.client.sendReadReceipt(answer());
    await bob.until("the thread is read", () => unread().join() === "0,0");
    arrived("matrix", "bob", "has read it, by a receipt of the thread");

    const phone = await alice.on("old phone");
    await phone.start();
    const there = phone.client.getRoom(room);
    await there.createThreadsTimelineSets();
    await there.fetchRoomThreads();
    const threads = () => there.getThreads().map((thread) => `${thread.id} ${thread.length}`).join();
    await phone.until("the list of threads has this one, with an answer", () => threads() === `${root} 1`);
    arrived("matrix", phone.name, "has the thread in its list");
    await phone.leave();
}

async function search(room, alice, bob) {
    const text = "猫の餌は台所にあります (the cat's food is in the kitchen)";
    said("matrix", "bob", "noticeboard", text);
    await bob.say(room, text);
    await hears(room, alice, text);
    for (const [term, count] of [["kitchen", 1], ["餌は台所", 1], ["cat", 2], ["dog", 0]]) {
        const { results } = await alice.client.searchRoomEvents({ term, filter: { rooms: [room] } });
        if (results.length !== count) throw new Error(`the search for "${term}" finds ${results.length} messages, expected ${count}`);
        arrived("matrix", "alice", `finds ${count} with "${term}"`);
    }
}

async function sendLater(room, alice, bob) {
    const { client } = alice;
    const later = async (delay, body) =>
        (await client._unstable_sendDelayedEvent(room, { delay }, null, "m.room.message", { msgtype: "m.text", body })).delay_id;
    const waiting = async () => (await client._unstable_getDelayedEvents()).delayed_events.map((e) => e.delay_id);

    said("matrix", "alice", "noticeboard", "The cat is fed. (in a second)");
    await later(1000, "The cat is fed.");
    await hears(room, bob, "The cat is fed.");

    const birthday = await later(hour, "Happy birthday, Bob!");
    const mistake = await later(hour, "This was for somebody else.");
    if ((await waiting()).sort().join() !== [birthday, mistake].sort().join()) throw new Error("the delayed events are not those that alice made");
    await client._unstable_updateDelayedEvent(mistake, "restart");
    await client._unstable_updateDelayedEvent(mistake, "cancel");
    note("matrix", "alice cancels a message for later, and sends another one now");
    await client._unstable_updateDelayedEvent(birthday, "send");
    await hears(room, bob, "Happy birthday, Bob!");
    if ((await waiting()).length > 0) throw new Error("alice still has delayed events");
}
