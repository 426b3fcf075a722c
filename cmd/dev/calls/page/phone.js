// A person who calls and is called, in a browser: matrix-js-sdk, the library of
// Element Web, with the browser's own WebRTC. The test runs this in a page of
// the homeserver and drives it by globalThis.phone.

import { ClientEvent, SyncState, createClient, createNewMatrixCall } from "matrix-js-sdk";
import { CallErrorCode, CallEvent, CallState } from "matrix-js-sdk/lib/webrtc/call.js";
import { CallEventHandlerEvent } from "matrix-js-sdk/lib/webrtc/callEventHandler.js";

let client;
let call; // the newest

/** Plays what the other side says, or the browser decodes none of it. */
function play() {
    for (const feed of call.getRemoteFeeds()) {
        const id = `feed-${feed.stream.id}`;
        if (document.getElementById(id)) continue;
        const player = Object.assign(document.createElement("video"), { id, autoplay: true, playsInline: true, srcObject: feed.stream });
        document.body.append(player);
        void player.play().catch(() => {});
    }
}

/** Follows a call from now on. */
function follow(next) {
    call = next;
    call.trouble = [];
    call.on(CallEvent.FeedsChanged, play);
    call.on(CallEvent.Error, (err) => call.trouble.push(String(err)));
}

globalThis.phone = {
    /**
     * Logs in and waits for the first sync and for the TURN servers.
     *
     * @param {string} user localpart
     * @param {string} password
     * @param {"relay" | "all" | "direct"} policy which paths a call may take:
     *     relays alone, all, or all that need no relay
     */
    async login(user, password, policy) {
        const base = { baseUrl: location.origin, forceTURN: policy === "relay", fallbackICEServerAllowed: false };
        const login = await createClient(base).login("m.login.password", { identifier: { type: "m.id.user", user }, password });
        client = createClient({ ...base, accessToken: login.access_token, userId: login.user_id, deviceId: login.device_id });
        if (policy === "direct") client.checkTurnServers = async () => undefined; // which it asks for by itself, too
        client.on(CallEventHandlerEvent.Incoming, (incoming) => {
            follow(incoming);
            void incoming.answer(true, true);
        });
        const ready = new Promise((resolve) => {
            client.on(ClientEvent.Sync, (state) => state === SyncState.Prepared && resolve());
        });
        await client.startClient({ initialSyncLimit: 5 });
        await ready;
        await client.checkTurnServers();
        return client.getTurnServers().flatMap((server) => server.urls);
    },

    /** Makes a room and invites somebody. */
    async room(invite) {
        const { room_id } = await client.createRoom({ preset: "trusted_private_chat", is_direct: true, invite: [invite] });
        return room_id;
    },

    /** Joins a room and waits until it is there, with somebody else in it. */
    async join(room) {
        await client.joinRoom(room);
        return true;
    },

    /** How many people are in a room, as this client knows. */
    members(room) {
        return client.getRoom(room)?.getJoinedMemberCount() ?? 0;
    },

    /** Calls, with sound and pictures. */
    async dial(room) {
        follow(createNewMatrixCall(client, room));
        await call.placeVideoCall();
        return true;
    },

    hangUp() {
        call.hangup(CallErrorCode.UserHangup, false);
        return true;
    },

    /** What is known of the call: its state, its path, and what has arrived. */
    async report() {
        const report = { state: call?.state ?? "", trouble: call?.trouble ?? [], ended: call?.state === CallState.Ended, reason: call?.hangupReason ?? "" };
        const stats = await call?.peerConn?.getStats();
        if (!stats) return report;
        const all = [...stats.values()];
        // Not by its state: that is "in-progress" again while a check of it is late.
        const pair = stats.get(all.find((s) => s.type === "transport" && s.selectedCandidatePairId)?.selectedCandidatePairId);
        if (pair) {
            const local = stats.get(pair.localCandidateId);
            const remote = stats.get(pair.remoteCandidateId);
            report.path = { local: local.candidateType, relayProtocol: local.relayProtocol ?? "", url: local.url ?? "", remote: remote.candidateType };
        }
        for (const s of all) {
            if (s.type !== "inbound-rtp") continue;
            report[s.kind] = { packets: s.packetsReceived, energy: s.totalAudioEnergy ?? 0, frames: s.framesDecoded ?? 0, width: s.frameWidth ?? 0 };
        }
        return report;
    },
};
