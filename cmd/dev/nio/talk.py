"""Two people with matrix-nio talk in an encrypted room.

    python3 talk.py URL FOLDER

Both are there already, with the password of the tests. What goes wrong is an
exception; the last line of a talk that went well is "all is well".
"""

import asyncio
import io
import sys
from pathlib import Path

import aiohttp
from nio import (
    AsyncClient,
    AsyncClientConfig,
    Event,
    InviteMemberEvent,
    MegolmEvent,
    RoomEncryptedImage,
    RoomMessageText,
)
from nio.crypto.attachments import decrypt_attachment

PASSWORD = "correct horse battery"
PATIENCE = 120  # seconds


class Person:
    def __init__(self, url, name, folder):
        config = AsyncClientConfig(encryption_enabled=True, store_sync_tokens=True)
        store = folder / name
        store.mkdir(exist_ok=True)
        self.client = AsyncClient(url, name, store_path=str(store), config=config)
        self.events = []
        self.invited = []
        self.client.add_event_callback(self.saw, Event)
        self.client.add_event_callback(self.saw_invite, InviteMemberEvent)

    def saw(self, _, event):
        self.events.append(event)

    def saw_invite(self, room, _):
        self.invited.append(room.room_id)

    async def log_in(self):
        answer = await self.client.login(PASSWORD)
        assert self.client.logged_in, answer
        await self.sync()

    async def sync(self):
        """One sync, and what follows from it: keys are uploaded, asked for and claimed."""
        await self.client.sync(timeout=200, full_state=False)
        await self.client.send_to_device_messages()
        if self.client.should_upload_keys:
            await self.client.keys_upload()
        if self.client.should_query_keys:
            await self.client.keys_query()
        if self.client.should_claim_keys:
            await self.client.keys_claim(self.client.get_users_for_key_claiming())

    async def until(self, what, find):
        """Syncs until find gives something."""
        for _ in range(PATIENCE * 5):
            found = find()
            if found:
                return found
            await self.sync()
        raise TimeoutError(what)

    async def sees(self, kind, want):
        """Waits for a decrypted event."""

        def find():
            for event in self.events:
                assert not isinstance(event, MegolmEvent), f"not decrypted: {event}"
                if isinstance(event, kind) and want(event):
                    return event

        return await self.until(str(kind), find)

    async def send(self, room, content, kind="m.room.message"):
        answer = await self.client.room_send(room, kind, content, ignore_unverified_devices=True)
        return answer.event_id


def text(body, **more):
    return {"msgtype": "m.text", "body": body, **more}


async def talk(url, folder):
    alice, bob = Person(url, "alice", folder), Person(url, "bob", folder)
    try:
        for person in (alice, bob):
            await person.log_in()
        room = await meet(alice, bob)
        await converse(alice, bob, room)
        await show_picture(url, alice, bob, room)
        await come_back(url, folder, alice, bob, room)
    finally:
        for person in (alice, bob):
            await person.client.close()
    print("all is well")


async def meet(alice, bob):
    """Alice makes an encrypted room, and bob comes."""
    encryption = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    room = (await alice.client.room_create(invite=[bob.client.user_id], initial_state=[encryption])).room_id
    await bob.until("the invitation", lambda: room in bob.invited)
    await bob.client.join(room)
    for person, other in ((alice, bob), (bob, alice)):
        await person.until("the other one", lambda: other.client.user_id in getattr(person.client.rooms.get(room), "users", ()))
        assert person.client.rooms[room].encrypted
        await person.until("keys", lambda: list(person.client.device_store.active_user_devices(other.client.user_id)))
    return room


async def converse(alice, bob, room):
    """A message, an edit, a reply, a reaction and a thread."""
    first = await alice.send(room, text("hello bob"))
    await bob.sees(RoomMessageText, lambda e: e.event_id == first and e.body == "hello bob" and e.decrypted)

    edit = text("* hello Bob", **{"m.new_content": text("hello Bob"), "m.relates_to": {"rel_type": "m.replace", "event_id": first}})
    edited = await alice.send(room, edit)
    seen = await bob.sees(RoomMessageText, lambda e: e.event_id == edited)
    assert seen.source["content"]["m.new_content"]["body"] == "hello Bob", seen.source

    reply = await bob.send(room, text("hello alice", **{"m.relates_to": {"m.in_reply_to": {"event_id": first}}}))
    seen = await alice.sees(RoomMessageText, lambda e: e.event_id == reply)
    assert seen.source["content"]["m.relates_to"]["m.in_reply_to"]["event_id"] == first, seen.source

    thread = {"rel_type": "m.thread", "event_id": first, "is_falling_back": True, "m.in_reply_to": {"event_id": first}}
    threaded = await bob.send(room, text("in a thread", **{"m.relates_to": thread}))
    await alice.sees(RoomMessageText, lambda e: e.event_id == threaded and e.body == "in a thread")

    reaction = {"m.relates_to": {"rel_type": "m.annotation", "event_id": reply, "key": "👍"}}
    await alice.send(room, reaction, "m.reaction")
    await bob.sees(Event, lambda e: e.source["type"] == "m.reaction" and e.source["content"] == reaction)

    await bob.client.room_read_markers(room, fully_read_event=edited, read_event=edited)
    whole = await alice.client.room_messages(room, start=alice.client.next_batch, limit=50)
    bodies = [e.body for e in reversed(whole.chunk) if isinstance(e, RoomMessageText)]
    assert bodies == ["hello bob", "* hello Bob", "hello alice", "in a thread"], bodies


async def show_picture(url, alice, bob, room):
    """An encrypted file, which bob fetches with his token and decrypts."""
    picture = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 50
    upload, keys = await alice.client.upload(
        lambda *_: io.BytesIO(picture), content_type="image/png", filename="cat.png", encrypt=True, filesize=len(picture)
    )
    content = {
        "msgtype": "m.image", "body": "cat.png", "info": {"mimetype": "image/png", "size": len(picture)},
        "file": {"url": upload.content_uri, "mimetype": "image/png", **keys},
    }
    sent = await alice.send(room, content)
    seen = await bob.sees(RoomEncryptedImage, lambda e: e.event_id == sent)
    server, media = seen.url.removeprefix("mxc://").split("/")
    headers = {"Authorization": "Bearer " + bob.client.access_token}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.get(f"{url}/_matrix/client/v1/media/download/{server}/{media}") as answer:
            assert answer.status == 200, answer.status
            sealed = await answer.read()
    got = decrypt_attachment(sealed, seen.key["k"], seen.hashes["sha256"], seen.iv)
    assert got == picture, f"{len(got)} bytes came"


async def come_back(url, folder, alice, bob, room):
    """Bob's client ends and begins again with what it has stored."""
    device, token = bob.client.device_id, bob.client.access_token
    await bob.client.close()
    later = await alice.send(room, text("are you back?"))
    again = Person(url, "bob", folder)
    again.client.restore_login("@bob:localhost", device, token)
    bob.client, bob.events = again.client, again.events
    await bob.sees(RoomMessageText, lambda e: e.event_id == later and e.body == "are you back?" and e.decrypted)


asyncio.run(talk(sys.argv[1], Path(sys.argv[2])))
