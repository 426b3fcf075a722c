"""A mail server on loopback that puts what it gets into a maildir: aiosmtpd,
with TLS and a login as the arguments say. It prints its port, and ends with its
standard input. A file "refuse" beside the maildir holds the answer to RCPT, a
file "fail" that to a whole message; either with the mailboxes it is for, or none.
"""
import argparse
import asyncio
import pathlib
import ssl
import sys

from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import SMTP, AuthResult

args = argparse.ArgumentParser()
args.add_argument("--dir", type=pathlib.Path)
args.add_argument("--tls", choices=["starttls", "tls", "none"])
args.add_argument("--cert")
args.add_argument("--key")
args.add_argument("--user", default="")
args.add_argument("--password", default="")
args = args.parse_args()


def answer(name):
    file = args.dir / name
    return file.read_text().strip() if file.exists() else ""


class Handler(Mailbox):
    async def handle_RCPT(self, server, session, envelope, address, options):
        if refused := answer("refuse"):
            return refused
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if failed := answer("fail"):
            return failed
        return await super().handle_DATA(server, session, envelope)


def authenticate(server, session, envelope, mechanism, data):
    good = (data.login.decode(), data.password.decode()) == (args.user, args.password)
    return AuthResult(success=good, handled=False)


async def main():
    context = None
    if args.tls != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(args.cert, args.key)
    handler = Handler(str(args.dir / "mail"))
    loop = asyncio.get_running_loop()

    def session():
        return SMTP(
            handler,
            hostname="mail.test",
            tls_context=context if args.tls == "starttls" else None,
            require_starttls=args.tls == "starttls",
            authenticator=authenticate if args.user else None,
            auth_required=bool(args.user),
            auth_require_tls=args.tls == "starttls",  # aiosmtpd does not see that TLS came first
        )

    server = await loop.create_server(session, "127.0.0.1", 0, ssl=context if args.tls == "tls" else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
