"""An endpoint that misbehaves as it is told: `python -m faultserver.server LOG [SCRIPT] [--cert PEM]`.

Real sockets, because the faults we need are below HTTP libraries. Prints one ready line with its ports, then serves
until it is killed. A script is a list of rules; the first that matches a request says what is done with it:

    {"match": {"route": "/v1/completions", "row": 3 or [3, 4], "nth_attempt": 2 or [1, 5], "rate": 0.3, "seed": 1,
               "method": "POST", "after_s": 5, "until_s": 9},
     "do": [{"delay": s}, {"status": n, "headers": {}}, {"body": "ok|html|empty|null|...|text:...|file:x|bomb:MB"},
            {"change": {"choices.0.message.content": null}}, {"chunk": [bytes, pause_s]}, {"cut_at": n}, {"hang_at": [n, s]},
            {"rst": true}, {"close": true}, {"hang": s}, {"encoding": "gzip"}, {"length": n},
            {"limits": {"rpm": n, "tpm": n, "in_flight": n, "slots": n}}, {"batch": see `files.py`}]}

Each request is one line of the log, appended with one write, so that it survives the death of anybody.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import json
import os
import socket
import ssl
import struct
import sys
import time
import zlib
from collections import Counter, defaultdict, deque
from pathlib import Path
from typing import Any

from faultserver.bodies import ROUTES, events, marker, merged, number, spoiled
from faultserver.files import Files

Rule = dict[str, Any]


class Server:
    """What one life of the server knows."""

    def __init__(self, log: Path, script: list[Rule]) -> None:
        self.script, self.began = script, time.monotonic()
        self.log = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        self.attempts: Counter[tuple[str, str]] = Counter()
        self.in_flight = self.peak = self.connections = 0
        self.billed = {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0}
        self.recent: defaultdict[str, deque[tuple[float, int]]] = defaultdict(deque)
        self.slots: dict[int, asyncio.Semaphore] = {}
        self.files = Files()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until one side closes it."""
        self.connections += 1
        connection = self.connections
        try:
            while await self.one(connection, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError, asyncio.LimitOverrunError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def one(self, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        if path.startswith("/__"):
            return await self.control(path, raw, writer)
        path, _, query = path.partition("?")
        mark = "" if path.startswith(("/v1/files", "/v1/batches")) else marker(raw)
        key = (
            path,
            mark or (method if path.startswith(("/v1/files", "/v1/batches")) else hashlib.sha256(raw).hexdigest()),
        )
        self.attempts[key] += 1
        line: dict[str, Any] = {
            "at": time.monotonic(), "connection": connection, "run": headers.get("x-run", ""), "route": path, "query": f"?{query}" if query else "", "method": method,
            "row": int(mark) if mark else None, "attempt": self.attempts[key], "sha256": hashlib.sha256(raw).hexdigest(),
            "host": writer.get_extra_info("sockname")[0], "sent": 0, "client_closed": False, "status": 0,
        }  # fmt: skip
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await Reply(self, reader, writer, line).send(method, headers, raw)
        finally:
            self.in_flight -= 1
            line |= {"in_flight": self.in_flight, "seconds": time.monotonic() - line["at"]}
            os.write(self.log, json.dumps(line).encode() + b"\n")

    async def control(self, path: str, raw: bytes, writer: asyncio.StreamWriter) -> bool:
        if path == "/__script":
            self.files = Files()
            self.script, self.began = json.loads(raw), time.monotonic()
            self.attempts.clear()
            self.recent.clear()
            self.slots.clear()
        state = {
            "batches": len(self.files.batches),
            "billed": self.billed,
            "peak": self.peak,
            "connections": self.connections,
            "in_flight": self.in_flight,
        }
        said = json.dumps(state).encode()
        if path == "/__script":
            self.peak, self.billed = 0, dict.fromkeys(self.billed, 0)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
        await writer.drain()
        return True

    def rule(self, line: dict[str, Any]) -> dict[str, Any]:
        """What is to be done with a request: the actions of the first rule that matches it, as one."""
        for rule in self.script:
            if self.matches(rule.get("match", {}), line):
                return {name: value for action in rule["do"] for name, value in action.items()}
        return {}

    def matches(self, match: dict[str, Any], line: dict[str, Any]) -> bool:
        since = time.monotonic() - self.began
        low, high = _range(match.get("nth_attempt", [1, 10**9]))
        if match.get("method", line["method"]) != line["method"]:
            return False
        rows = match.get("row", line["row"])
        which = line["sha256"] if line["row"] is None else line["row"]
        return (
            line["route"].endswith(match.get("route", ""))
            and (line["row"] in rows if isinstance(rows, list) else rows == line["row"])
            and low <= line["attempt"] <= high
            and match.get("after_s", 0) <= since < match.get("until_s", 10**9)
            and number(match.get("seed"), which, line["attempt"]) < match.get("rate", 1.0)
        )


def _range(value: Any) -> tuple[int, int]:
    return (value[0], value[1]) if isinstance(value, list) else (value, value)


class Reply:
    """One answer, sent as well or as badly as the script says."""

    def __init__(
        self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: dict[str, Any]
    ) -> None:
        self.server, self.reader, self.writer, self.line = server, reader, writer, line
        self.do = server.rule(line)

    async def send(self, method: str, headers: dict[str, str], raw: bytes) -> bool:
        do = self.do
        if "close" in do or ("rst" in do and "cut_at" not in do):
            return self.gone("rst" in do)
        if "hang" in do:
            await self.silence(do["hang"])
            return self.gone(False)
        limits = do.get("limits", {})
        refused = self.over(limits, len(raw) // 4)
        if refused is not None:
            return await self.write(429, refused, b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}')
        if "slots" in limits:
            async with self.server.slots.setdefault(limits["slots"], asyncio.Semaphore(limits["slots"])):
                await asyncio.sleep(do.get("delay", 0))
        elif "delay" in do:
            await asyncio.sleep(do["delay"])
        kind, good = self.good(method, headers, raw)
        body = good if "body" not in do else self.body(do["body"], good)
        status = do.get("status", 404 if not kind else 200)
        return await self.write(status, {"Content-Type": kind or "application/json"} | do.get("headers", {}), body)

    def good(self, method: str, headers: dict[str, str], raw: bytes) -> tuple[str, bytes]:
        """Content type and bytes of the right answer; no type where there is no such route."""
        path = self.line["route"]
        if path.startswith(("/v1/files", "/v1/batches")):
            kind, plan = headers.get("content-type", ""), self.do.get("batch", {})
            found = self.server.files.answer(method, path + self.line["query"], kind, raw, plan)
            for spent in self.server.files.billed:
                self.bill({"usage": spent})
            self.server.files.billed.clear()
            return ("", b'{"error": {"message": "no such thing"}}') if found is None else ("application/json", found)
        if path not in ROUTES:
            return "", b'{"error": {"message": "no such route", "code": "not_found"}}'
        request = json.loads(raw or b"{}")
        reply = merged(ROUTES[path](request), self.do.get("change", {}))
        self.bill(reply)
        if request.get("stream") and "choices" in reply:
            return "text/event-stream", events(reply)
        return "application/json", json.dumps(reply, ensure_ascii=False).encode("utf-8", "surrogatepass")

    def bill(self, reply: Any) -> None:
        """Charge at the first byte of the header, as a vendor does, for what is answered with success."""
        if self.do.get("status", 200) == 200 or "batch" in self.do:
            self.server.billed["calls"] += 1
            spent = reply.get("usage") if isinstance(reply, dict) else None
            for name in ("prompt_tokens", "completion_tokens"):
                self.server.billed[name] += spent.get(name, 0) if isinstance(spent, dict) else 0

    def body(self, name: str, good: bytes) -> bytes:
        if name.startswith("file:"):
            return Path(name.removeprefix("file:")).read_bytes()
        if name.startswith("bomb:"):
            return bomb(int(name.removeprefix("bomb:")))
        return spoiled(name, good)

    def over(self, limits: dict[str, int], tokens: int) -> dict[str, str] | None:
        """Headers of a refusal where a limit is reached; None where it is not."""
        if "in_flight" in limits and self.server.in_flight > limits["in_flight"]:
            return {}
        for name, cost in (("rpm", 1), ("tpm", tokens)):
            if name in limits:
                recent, now = self.server.recent[name], time.monotonic()
                window = limits.get("window_s", 60)
                while recent and recent[0][0] <= now - window:
                    recent.popleft()
                if sum(c for _, c in recent) + cost > limits[name]:
                    return {"Retry-After": f"{recent[0][0] + window - now:.3f}"}
                recent.append((now, cost))
        return None

    async def write(self, status: int, headers: dict[str, str], body: bytes) -> bool:
        self.line["status"] = status
        if self.do.get("encoding") == "gzip" and not self.do.get("body", "").startswith("bomb:"):
            body = gzip.compress(body, mtime=0)
        if "encoding" in self.do:
            headers = headers | {"Content-Encoding": self.do["encoding"]}
        stream = headers.get("Content-Type", "").startswith("text/event-stream")
        length = {"Connection": "close"} if stream else {"Content-Length": str(self.do.get("length", len(body)))}
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{k}: {v}" for k, v in (headers | length).items())]
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))
        await self.pieces(body[: self.do.get("cut_at", len(body))])
        if "cut_at" in self.do or stream:
            return self.gone("rst" in self.do)
        return True

    async def pieces(self, body: bytes) -> None:
        size, pause = self.do.get("chunk", [len(body) or 1, 0])
        at, hang = self.do.get("hang_at", [len(body) + 1, 0])
        for start in range(0, len(body), size):
            if start + size > at:
                await self.silence(hang)
            self.writer.write(body[start : start + size])
            try:
                await self.writer.drain()
            except ConnectionError:
                self.line["client_closed"] = True
                raise
            self.line["sent"] += len(body[start : start + size])
            self.line["client_closed"] = self.writer.is_closing()
            if pause:
                await asyncio.sleep(pause)

    async def silence(self, seconds: float) -> None:
        """Send nothing for so long, or until the client has gone."""
        try:
            await asyncio.wait_for(self.reader.read(1), seconds)
            self.line["client_closed"] = True
        except TimeoutError:
            pass

    def gone(self, reset: bool) -> bool:
        sock = self.writer.get_extra_info("socket")
        if reset and sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.close()
        return False


def bomb(megabytes: int) -> bytes:
    """So many megabytes of spaces in a little gzip."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b" " * 2**20
    return b"".join([packer.compress(block) for _ in range(megabytes)]) + packer.flush()


async def serve(log: Path, script: list[Rule], cert: str | None) -> None:
    """Listen on two addresses, say so, and serve for ever."""
    server = Server(log, script)
    context = None
    if cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert)
    here = await asyncio.start_server(server.connected, "127.0.0.1", 0, limit=2**26, backlog=2048, ssl=context)
    there = await asyncio.start_server(server.connected, "127.0.0.2", 0, limit=2**26, ssl=context)
    ports = [s.sockets[0].getsockname()[1] for s in (here, there)]
    print(json.dumps({"port": ports[0], "other": ports[1], "pid": os.getpid()}), flush=True)
    await asyncio.gather(here.serve_forever(), there.serve_forever())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("log", type=Path)
    parser.add_argument("script", nargs="?", default="[]")
    parser.add_argument("--cert")
    given = parser.parse_args()
    try:
        asyncio.run(serve(given.log, json.loads(given.script), given.cert))
    except KeyboardInterrupt:
        sys.exit(130)
