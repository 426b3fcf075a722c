// Two people in an encrypted room.

import { picture } from "./attachment.js";
import { arrived, chapter, note, said } from "./conversation.js";

const room = "Kitchen (encrypted)";

/**
 * Alice invites Bob into an encrypted room; they talk, and she sends a picture.
 *
 * @param {import("./matrix.js").Person} alice
 * @param {import("./matrix.js").Person} bob
 * @returns {Promise<string>} the room's ID
 */
export async function talkEncrypted(alice, bob) {
    chapter("Two people talk in an encrypted room");
    const roomID = await alice.createEncryptedRoom("Kitchen", bob.userID);
    note("matrix", `alice creates the room ${roomID} and invites bob`);
    await bob.acceptInvite(roomID);
    await alice.meets(bob.userID, roomID);
    note("matrix", "bob accepts");

    await say(roomID, alice, bob, "Hi Bob! Can you read this? The server cannot.");
    await say(roomID, bob, alice, "Loud and clear, Alice. ¿Cómo estás? 🌶️");
    await say(roomID, alice, bob, "Fine. Wait, I have a picture for you.");
    await showPicture(roomID, alice, bob);
    await say(roomID, bob, alice, "What a sunset! Thank you.");
    return roomID;
}

async function say(roomID, from, to, text) {
    said("matrix", from.name, room, text);
    await from.say(roomID, text);
    const event = await to.sees(roomID, `${from.name}'s message "${text}"`, (e) =>
        e.getSender() === from.userID && e.getContent().body === text);
    if (event.getWireType() !== "m.room.encrypted") throw new Error(`"${text}" was sent in the clear`);
    arrived("matrix", to.name, "decrypted it");
}

async function showPicture(roomID, from, to) {
    const bytes = picture();
    said("matrix", from.name, room, `[picture, ${bytes.length} bytes]`);
    const sent = await from.sendPicture(roomID, "sunset.png", bytes);
    const event = await to.sees(roomID, `${from.name}'s picture`, (e) => e.getContent().msgtype === "m.image");
    const { stored, bytes: shown } = await to.openPicture(event);
    if (!Buffer.from(sent).equals(stored)) throw new Error("the server gave other bytes than it was given");
    if (Buffer.from(bytes).equals(stored)) throw new Error("the picture lies on the server in the clear");
    if (!Buffer.from(bytes).equals(shown)) throw new Error("the decrypted picture is not the one that was sent");
    arrived("matrix", to.name, `downloaded and decrypted it: the same ${shown.length} bytes`);
}
