// How Alice comes by her messages on new devices: from a backup, after she
// verified one by another, and from a device that is only on the server.

import { CryptoEvent, VerificationPhase, VerificationRequestEvent, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/index.js";

import { arrived, chapter, note, said } from "./conversation.js";
import { within } from "./expect.js";

/**
 * Alice gets a phone and a tablet.
 *
 * @param {import("./matrix.js").Person} alice at her laptop
 * @param {import("./matrix.js").Person} bob
 * @param {string} room of theirs, encrypted
 * @param {string} old a text that bob said there
 * @returns {Promise<void>}
 */
export async function addDevices(alice, bob, room, old) {
    chapter("Alice gets a phone and a tablet");
    const backedUp = new Promise((resolve) => {
        alice.client.on(CryptoEvent.KeyBackupSessionsRemaining, (left) => left === 0 && resolve());
    });
    await alice.store();
    note("matrix", "alice keeps her secrets on the server, under a key that she writes down");
    await within("the keys of alice's messages are in the backup", backedUp);

    const phone = await alice.on("phone");
    await phone.start();
    await restore(phone);
    await reads(phone, room, old, "from the backup");
    await trusts(alice, phone);

    const tablet = await alice.on("tablet");
    await tablet.start({ sliding: true });
    await compareEmoji(tablet, alice);
    await trusts(alice, tablet);
    await reads(tablet, room, old, "from the backup, whose key the laptop sent, by sliding sync");
    await hears(bob, room, "Do you all hear me?", alice, phone, tablet);
    await Promise.all([phone, tablet].map((device) => device.leave()));
}

/**
 * Carol has no device for a while but the one that the server keeps for her
 * (MSC3814).
 *
 * @param {import("./matrix.js").Person} carol
 * @param {import("./matrix.js").Person} bob
 */
export async function sleepAndWake(carol, bob) {
    chapter("Carol loses her only device");
    await carol.store();
    if (!(await carol.client.getCrypto().isDehydrationSupported())) throw new Error("the server keeps no dehydrated devices");
    await carol.client.getCrypto().startDehydration();
    note("matrix", "carol leaves a dehydrated device on the server");
    const room = await bob.createEncryptedRoom("Night shift", carol.userID);
    await carol.acceptInvite(room);
    await bob.meets(carol.userID, room);
    await carol.leave();
    note("matrix", "carol is logged out everywhere");
    const text = "Sleep well, Carol. The keys are under the mat.";
    said("matrix", bob.name, "Night shift (encrypted)", text);
    await bob.say(room, text);

    const phone = await carol.on("new phone");
    await phone.start();
    await restore(phone);
    await phone.client.getCrypto().startDehydration();
    await reads(phone, room, text, "with the keys that her dehydrated device got");
    await phone.leave();
}

// restore uses the key that somebody has written down on a new device.
async function restore(person) {
    const crypto = person.client.getCrypto();
    await crypto.userHasCrossSigningKeys(person.userID, true); // fetches the public ones
    await crypto.bootstrapCrossSigning({});
    await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
    await crypto.checkKeyBackupAndEnable();
    const { imported, total } = await crypto.restoreKeyBackup();
    note("matrix", `${person.name} opens the secrets and takes ${imported} of ${total} keys from the backup`);
}

async function reads(person, room, text, how) {
    const event = await person.sees(room, `"${text}"`, (e) => e.getContent().body === text);
    if (event.getWireType() !== "m.room.encrypted") throw new Error(`"${text}" was sent in the clear`);
    arrived("matrix", person.name, `reads "${text}" ${how}`);
}

async function hears(from, room, text, ...people) {
    said("matrix", from.name, "Kitchen (encrypted)", text);
    await from.say(room, text);
    for (const person of people) await reads(person, room, text, "at once");
}

// trusts waits until one device sees that another one is signed by its owner.
async function trusts(one, other) {
    const { client } = other;
    await one.until(`${other.name} is verified`, async () => {
        const status = await one.client.getCrypto().getDeviceVerificationStatus(client.getUserId(), client.getDeviceId());
        return status?.crossSigningVerified === true;
    });
    arrived("matrix", one.name, `sees that ${other.name} is verified`);
}

// knows waits until one device has heard of another; it would take no request of
// verification from it before.
async function knows(one, other) {
    await one.until(`${other.name} is there`, async () => {
        const devices = await one.client.getCrypto().getUserDeviceInfo([one.userID], true);
        return devices.get(one.userID)?.has(other.client.getDeviceId()) === true;
    });
}

// compareEmoji lets two devices of one person verify each other.
async function compareEmoji(asking, asked) {
    await Promise.all([knows(asking, asked), knows(asked, asking)]);
    const received = new Promise((resolve) => asked.client.once(CryptoEvent.VerificationRequestReceived, resolve));
    const request = await asking.client.getCrypto().requestOwnUserVerification();
    const theirs = await within(`${asked.name} is asked to verify`, received);
    await theirs.accept();
    await reaches(request, VerificationPhase.Ready);
    const ours = await request.startVerification("m.sas.v1");
    await reaches(theirs, VerificationPhase.Started);
    const verifiers = [ours, theirs.verifier];
    const shown = verifiers.map((verifier) => new Promise((resolve) => verifier.once(VerifierEvent.ShowSas, resolve)));
    const done = verifiers.map((verifier) => verifier.verify());
    const sas = await within("both devices show emoji", Promise.all(shown));
    const [here, there] = sas.map(({ sas: { emoji } }) => emoji.map(([picture]) => picture).join(" "));
    if (here !== there) throw new Error(`${asking.name} shows ${here}, but ${asked.name} ${there}`);
    await Promise.all(sas.map((one) => one.confirm()));
    await within("both devices are verified", Promise.all(done));
    arrived("matrix", asking.name, `and ${asked.name} show the same: ${here}`);
}

// reaches waits until a request of verification is in a phase.
function reaches(request, phase) {
    return within(`a verification is in phase ${phase}`, new Promise((resolve) => {
        const check = () => {
            if (request.phase < phase) return;
            request.off(VerificationRequestEvent.Change, check);
            resolve();
        };
        request.on(VerificationRequestEvent.Change, check);
        check();
    }));
}
