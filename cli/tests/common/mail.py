"""A mail server of aiosmtpd, for tests: `mail.py WAY PORT CERTIFICATE KEY USER PASSWORD FOLDER`.

WAY is `starttls`, `tls` or `none`. Who does not log in may send nothing. Each mail that is taken is a file in FOLDER.
"""

import asyncio
import pathlib
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

way, port, certificate, key, user, password, folder = sys.argv[1:]


class Keep:
    count = 0

    async def handle_DATA(self, server, session, envelope):
        Keep.count += 1
        part = pathlib.Path(folder, f".{Keep.count}")
        part.write_bytes(envelope.content)
        part.rename(pathlib.Path(folder, f"{Keep.count}.eml"))
        return f"250 taken as {Keep.count}"


def login(server, session, envelope, mechanism, data):
    good = (data.login, data.password) == (user.encode(), password.encode())
    return AuthResult(success=good, handled=False)


def serve():
    options = {"hostname": "localhost", "auth_required": True, "authenticator": login, "auth_require_tls": way == "starttls"}
    if way == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    return SMTP(Keep(), **options)


async def main():
    server = await asyncio.get_running_loop().create_server(serve, "127.0.0.1", int(port), ssl=context if way == "tls" else None)
    await server.serve_forever()


context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(certificate, key)
asyncio.run(main())
