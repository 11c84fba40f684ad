"""An endpoint in a process of its own that answers by rule: what it says is a pure function of what it is asked.

`endpoint.py LOG` prints its port and serves until its standard input is closed. Each request is logged when its body is
here, before anything is answered, with one write of one line to a file that is only ever appended to.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def answer(text: str) -> dict[str, float]:
    """What is said to a text; a pure function, so that a wrong pairing of question and answer shows."""
    digest = hashlib.sha256(text.encode()).digest()
    return {"score": digest[0] / 255, "first": digest[1] / 7}


def pause_s(text: str) -> float:
    """How long the answer takes: 4 to 16 milliseconds by the text, or half a minute where the text asks for it."""
    return 30.0 if "half a minute" in text else 0.004 + hashlib.sha256(text.encode()).digest()[2] / 255 * 0.012


async def _converse(log: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode("latin-1").split("\r\n")[1:]
            headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
            asked = json.loads(await reader.readexactly(int(headers["content-length"])))
            os.write(log, f"{headers['x-life']} {asked['id']}\n".encode())
            await asyncio.sleep(pause_s(asked["text"]))
            body = json.dumps(answer(asked["text"])).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
        pass  # the client is gone, or was killed, or the endpoint is to end
    finally:
        writer.close()


async def _serve(log: int) -> None:
    server = await asyncio.start_server(lambda r, w: _converse(log, r, w), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextmanager
def serving(log: Path) -> Iterator[int]:
    """An endpoint for as long as the block lasts; gives its port. No kill of a client's process group reaches it."""
    server = subprocess.Popen([sys.executable, __file__, str(log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True, start_new_session=True)  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline())
    finally:
        server.stdin.close()
        server.wait(10)
        server.stdout.close()


if __name__ == "__main__":
    asyncio.run(_serve(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)))
