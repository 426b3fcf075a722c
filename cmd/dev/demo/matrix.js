// A person with a Matrix client: matrix-js-sdk, the library of Element Web,
// with its encryption in Rust.

import { ClientEvent, InteractiveAuth, MatrixEventEvent, RoomEvent, createClient } from "matrix-js-sdk";
import { SlidingSync } from "matrix-js-sdk/lib/sliding-sync.js";

import { decryptAttachment, encryptAttachment } from "./attachment.js";
import { Seen, within } from "./expect.js";

/** A person on the homeserver, with one device. */
export class Person {
    #base;
    #client;
    #keys = new Map(); // what the person has written down to open the secrets on the server
    #seen = new Seen(); // decrypted events of all rooms

    /**
     * @param {string} name localpart of the user ID
     * @param {string} base URL of the homeserver
     */
    constructor(name, base) {
        this.name = name;
        this.#base = base;
    }

    get userID() {
        return this.#client.getUserId();
    }

    /** The library's client, for what a chapter asks of the library itself. */
    get client() {
        return this.#client;
    }

    /**
     * Logs in on another device.
     *
     * @param {string} device what it is: "phone"
     * @returns {Promise<Person>} the same person with that device
     */
    async on(device) {
        const there = new Person(`${this.name}'s ${device}`, this.#base);
        there.password = this.password;
        there.#keys = this.#keys;
        const account = await this.#create({}).loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: this.userID },
            password: this.password,
            initial_device_display_name: there.name,
        });
        there.#use(account);
        return there;
    }

    /**
     * Makes the account, as any client does: it asks what the server wants,
     * and gives it the token.
     *
     * @param {string} token
     */
    async register(token) {
        const password = `${this.name}: a long password that nobody guesses`;
        const anonymous = this.#create({});
        const stages = [];
        const dialog = new InteractiveAuth({
            matrixClient: anonymous,
            doRequest: (auth) =>
                anonymous.registerRequest({
                    username: this.name,
                    password,
                    initial_device_display_name: `${this.name}'s demo`,
                    ...(auth && { auth }),
                }),
            stateUpdated: (stage) => {
                stages.push(stage);
                if (stage === "m.login.registration_token") dialog.submitAuthDict({ type: stage, token });
            },
            requestEmailToken: () => Promise.reject(new Error("the server asks for an e-mail address")),
            supportedStages: ["m.login.registration_token", "m.login.dummy"],
        });
        const account = await within(`${this.name} registers`, dialog.attemptAuth());
        this.#use(account);
        this.password = password;
        if (!stages.includes("m.login.registration_token")) {
            throw new Error(`${this.name} could register without a token`);
        }
    }

    // use makes the client of somebody who has logged in.
    #use(account) {
        this.#client = this.#create({
            userId: account.user_id,
            accessToken: account.access_token,
            deviceId: account.device_id,
            cryptoCallbacks: {
                cacheSecretStorageKey: (id, _info, key) => this.#keys.set(id, key),
                getSecretStorageKey: async ({ keys }) => [...this.#keys].find(([id]) => id in keys) ?? null,
            },
        });
    }

    #create(options) {
        return createClient({ baseUrl: this.#base, timelineSupport: true, ...options });
    }

    /**
     * Starts encryption and /sync, and returns after the first sync.
     *
     * @param {object} options
     * @param {boolean} options.sliding syncs by MSC4186, as Element X does
     */
    async start({ sliding } = {}) {
        const client = this.#client;
        await client.initRustCrypto({ useIndexedDB: false });
        client.on(RoomEvent.Timeline, (event, _room, toStart) => toStart || this.#take(event));
        client.on(MatrixEventEvent.Decrypted, (event) => this.#take(event));
        const synced = new Promise((resolve) => {
            client.on(ClientEvent.Sync, (state) => state === "PREPARED" && resolve());
        });
        const all = { ranges: [[0, 19]], timeline_limit: 20, required_state: [["*", "*"]] };
        await client.startClient({
            initialSyncLimit: 20,
            lazyLoadMembers: true,
            threadSupport: true,
            ...(sliding && { slidingSync: new SlidingSync(this.#base, new Map([["all", all]]), all, client, 20_000) }),
        });
        await within(`${this.name}'s first sync ends`, synced);
    }

    /**
     * Makes the keys with which a person vouches for their own devices, as a
     * client does after the first login.
     */
    async secure() {
        const crypto = this.#client.getCrypto();
        await crypto.bootstrapCrossSigning({
            authUploadDeviceSigningKeys: (makeRequest) =>
                makeRequest(null).catch((err) => {
                    if (err.httpStatus !== 401 || !err.data.session) throw err;
                    return makeRequest({
                        type: "m.login.password",
                        identifier: { type: "m.id.user", user: this.userID },
                        password: this.password,
                        session: err.data.session,
                    });
                }),
        });
    }

    /**
     * Keeps the secrets of the account on the server, under a key that the
     * person writes down, and begins a backup of the keys of messages.
     */
    async store() {
        const crypto = this.#client.getCrypto();
        await crypto.bootstrapSecretStorage({
            createSecretStorageKey: () => crypto.createRecoveryKeyFromPassphrase(),
            setupNewKeyBackup: true,
        });
    }

    stop() {
        this.#client?.stopClient();
    }

    /** Logs the device out. */
    async leave() {
        await this.#client.logout();
        this.stop();
    }

    /**
     * Creates an encrypted room and invites someone.
     *
     * @param {string} name
     * @param {...string} invite user IDs
     * @returns {Promise<string>} the room's ID
     */
    async createEncryptedRoom(name, ...invite) {
        const { room_id } = await this.#client.createRoom({
            name,
            preset: "private_chat",
            invite,
            initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
        });
        await this.#isIn(room_id);
        await this.until("the room is encrypted", () => this.#client.getCrypto().isEncryptionEnabledInRoom(room_id));
        return room_id;
    }

    /** Opens a room for two, without encryption. */
    async createDirectRoom(userID) {
        const { room_id } = await this.#client.createRoom({ preset: "trusted_private_chat", is_direct: true, invite: [userID] });
        return room_id;
    }

    /** Waits until other is a member of the room, as this person sees it. */
    async meets(other, roomID) {
        await this.until(`${other} is in the room`, () => this.#client.getRoom(roomID)?.getMember(other)?.membership === "join");
    }

    /** Waits for an invitation to the room and accepts it, unless somebody has done that already. */
    async acceptInvite(roomID) {
        await this.acceptInviteWhere("the room", (room) => room.roomId === roomID);
    }

    /**
     * Waits for an invitation to a room that matches and accepts it.
     *
     * @param {string} what for the message when it does not come
     * @param {(room: import("matrix-js-sdk").Room) => boolean} matches
     * @returns {Promise<string>} the room's ID
     */
    async acceptInviteWhere(what, matches) {
        const find = () => this.#client.getRooms().find((room) => ["invite", "join"].includes(room.getMyMembership()) && matches(room));
        await within(`${this.name} is invited to ${what}`, this.#until(() => Boolean(find())));
        const room = find();
        if (room.getMyMembership() === "invite") await this.#client.joinRoom(room.roomId);
        await this.#isIn(room.roomId);
        return room.roomId;
    }

    #isIn(roomID) {
        return within(`${this.name} is in the room`, this.#until(() => this.#client.getRoom(roomID)?.getMyMembership() === "join"));
    }

    /**
     * Waits until a condition holds, and asks again after every sync and every
     * second.
     *
     * @param {string} what for the message when that does not come
     * @param {() => boolean | Promise<boolean>} condition
     */
    until(what, condition) {
        return within(`${this.name} sees that ${what}`, this.#until(condition));
    }

    #until(condition) {
        const client = this.#client;
        return new Promise((resolve, reject) => {
            const check = async () => {
                try {
                    if (await condition()) end(resolve);
                } catch (err) {
                    end(reject, err);
                }
            };
            const timer = setInterval(check, 1000);
            const end = (settle, value) => {
                client.off(ClientEvent.Sync, check);
                clearInterval(timer);
                settle(value);
            };
            client.on(ClientEvent.Sync, check);
            check();
        });
    }

    /** Sends a text and returns the event's ID. */
    async say(roomID, text) {
        return (await this.#client.sendTextMessage(roomID, text)).event_id;
    }

    /**
     * Uploads a picture and sends it, encrypted if the room is.
     *
     * @returns {Promise<Uint8Array>} what the server has stored
     */
    async sendPicture(roomID, name, bytes) {
        const encrypted = await this.#client.getCrypto().isEncryptionEnabledInRoom(roomID);
        const { data, info } = encrypted ? await encryptAttachment(bytes) : { data: bytes };
        const { content_uri } = await this.#client.uploadContent(new Blob([data]), {
            type: encrypted ? "application/octet-stream" : "image/png",
            includeFilename: false,
        });
        await this.#client.sendMessage(roomID, {
            msgtype: "m.image",
            body: name,
            info: { mimetype: "image/png", size: bytes.length, w: 240, h: 160 },
            ...(encrypted ? { file: { ...info, url: content_uri } } : { url: content_uri }),
        });
        return data;
    }

    /**
     * Downloads the picture of a message, and decrypts it if need be.
     *
     * @returns {Promise<{stored: Uint8Array, bytes: Uint8Array}>} as the server has it, and decrypted
     */
    async openPicture(event) {
        const { file, url: plain } = event.getContent();
        const url = this.#client.mxcUrlToHttp(plain ?? file.url, undefined, undefined, undefined, false, true, true);
        const answer = await fetch(url, { headers: { Authorization: `Bearer ${this.#client.getAccessToken()}` } });
        if (!answer.ok) throw new Error(`${this.name} downloads the picture: ${answer.status} ${await answer.text()}`);
        const stored = new Uint8Array(await answer.arrayBuffer());
        if ((await fetch(url)).ok) throw new Error("the picture can be downloaded without logging in");
        return { stored, bytes: file ? await decryptAttachment(stored, file) : stored };
    }

    /**
     * Waits for a message in a room, seen or still to come.
     *
     * @param {string} roomID
     * @param {string} what for the message when it does not come
     * @param {(event: import("matrix-js-sdk").MatrixEvent) => boolean} matches
     */
    sees(roomID, what, matches) {
        return this.seesAnywhere(what, (event) => event.getRoomId() === roomID && matches(event));
    }

    /** Is sees in all rooms. */
    seesAnywhere(what, matches) {
        return this.#seen.find(`${this.name} sees ${what}`, (event) => event.getType() === "m.room.message" && matches(event));
    }

    #take(event) {
        if (event.isEncrypted() && !event.getClearContent()) return; // comes again when it is decrypted
        this.#seen.add(event);
    }
}
