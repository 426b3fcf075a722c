"""Xenia, the XMPP user of the demo: slixmpp, which knows nothing of Matrix.

    python xenia.py ADDRESS PASSWORD HOST:PORT CA-FILE FOLDER

What she is to say comes on standard input, what she sees goes to standard
output, both as lines of JSON, until the input ends. Pictures are files: those
that she gets lie in FOLDER.
"""

import asyncio
import json
import sys
from pathlib import Path

import aiohttp
import slixmpp


class Xenia(slixmpp.ClientXMPP):
    def __init__(self, address, password, ca, folder):
        super().__init__(address, password)
        self.ca_certs = Path(ca)
        self.folder = Path(folder)
        for plugin in ("xep_0030", "xep_0066", "xep_0363"):  # discovery, links to files, upload
            self.register_plugin(plugin)
        self.add_event_handler("session_start", self.started)
        self.add_event_handler("message", self.saw)
        self.add_event_handler("failed_all_auth", lambda _: sys.exit("the server does not let her in"))

    async def started(self, _):
        self.send_presence()
        await self.get_roster()
        tell(ready=True)
        lines = asyncio.StreamReader()
        await self.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        async for line in lines:
            await self.say(**json.loads(line))
        await self.disconnect()

    async def say(self, to, text=None, picture=None):
        if picture:
            text = await self["xep_0363"].upload_file(Path(picture), content_type="image/png")
        message = self.make_message(mto=to, mbody=text, mtype="chat")
        if picture:
            message["oob"]["url"] = text
        message.send()

    async def saw(self, message):
        if message["type"] not in ("chat", "normal") or not message["body"]:
            return
        seen = {"from": message["from"].bare}
        if message["oob"]["url"]:
            async with aiohttp.ClientSession() as web, web.get(message["oob"]["url"]) as answer:
                answer.raise_for_status()
                file = self.folder / "picture"
                file.write_bytes(await answer.read())
            tell(picture=str(file), **seen)
        else:
            tell(text=message["body"], **seen)


def tell(**what):
    print(json.dumps(what), flush=True)


address, password, server, ca, folder = sys.argv[1:]
host, port = server.rsplit(":", 1)
xenia = Xenia(address, password, ca, folder)
xenia.connect(host, int(port))
xenia.loop.run_until_complete(xenia.disconnected)
