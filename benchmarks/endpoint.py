"""Answered calls per second against the scripted server, by requests in flight: ours, and the openai client.

    python benchmarks/endpoint.py [--calls 2000] [--repeat 5] [--smoke]

The server runs in a process of its own and answers at once, so what is measured is the client, and the server where
that is slower. All variants run in turn in each repetition. The openai client is used without retries, one client for
all threads, and left out where it is not installed. Writes `benchmarks/results/endpoint.json`.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import sqlite3
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from faultserver.client import FaultServer, serving  # noqa: E402
from tunesift import Completion, Failure, HttpModel, Local, Message, Run, Sampling, Settings  # noqa: E402
from tunesift.books import SHELF  # noqa: E402
from tunesift.budget import Caps  # noqa: E402
from tunesift.running.ledger import Ledger  # noqa: E402


@dataclass(frozen=True)
class Question:
    """An item of a run."""

    id: str


@dataclass(frozen=True, kw_only=True)
class Ask(Settings):
    """A step that asks a model about each item."""

    model: HttpModel
    returns: ClassVar[type[Completion]] = Completion

    def __call__(self, chunk: Sequence[Question], /) -> list[Completion | Failure]:
        return self.model.chat([[Message("user", f"row={item.id}")] for item in chunk], Sampling(max_tokens=16))


def ours(url: str, flight: int, calls: int) -> None:
    """Threads that call a model."""
    ask = Ask(model=HttpModel(url=url, model="fast", concurrency=flight))
    with ThreadPoolExecutor(flight) as pool:
        made = list(pool.map(lambda n: ask([Question(str(n))])[0], range(calls)))
    assert all(isinstance(m, Completion) for m in made)


def journalled(url: str, flight: int, calls: int) -> None:
    """A stage of a run."""
    with TemporaryDirectory() as folder, Run(Path(folder) / "run", Local()) as run:
        model = HttpModel(url=url, model="fast", concurrency=flight)
        made = run.map("ask", Ask(model=model), [Question(str(n)) for n in range(calls)])
        assert len(made.good()) == calls


def booked(url: str, flight: int, calls: int) -> None:
    """A stage of a run whose money is written down as well: a durable reservation before every call."""
    with TemporaryDirectory() as folder, closing(Ledger(Path(folder), Caps(), {})) as ledger, SHELF.keeping(ledger):
        journalled(url, flight, calls)


def theirs(url: str, flight: int, calls: int) -> None:
    """Threads that share one openai client."""
    import openai

    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:

        def ask(n: int) -> Any:
            messages: Any = [{"role": "user", "content": f"row={n}"}]
            return client.chat.completions.create(model="fast", messages=messages, max_tokens=16, temperature=0.0)

        with ThreadPoolExecutor(flight) as pool:
            made = list(pool.map(ask, range(calls)))
    assert all(m.choices[0].message.content for m in made)


def bound(server: FaultServer, flight: int, calls: int) -> None:
    """Bare sockets, each sending the same request again and again: what the server can answer at most."""
    import socket

    body = json.dumps({"model": "fast", "messages": [{"role": "user", "content": "row=1"}], "max_tokens": 16}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)

    def talk(_: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            for _ in range(calls // flight):
                sock.sendall(head + body)
                while not sock.recv(65536).endswith(b"}}"):
                    pass

    with ThreadPoolExecutor(flight) as pool:
        list(pool.map(talk, range(flight)))


@dataclass(frozen=True)
class Measured:
    """Seconds of every variant in every repetition: by the clock, and of the processor in this process."""

    seconds: dict[str, list[float]]
    processor: dict[str, list[float]]


def measure(work: dict[str, Callable[[], object]], repeat: int) -> Measured:
    """All variants in turn, after one warm-up each."""
    found = Measured({name: [] for name in work}, {name: [] for name in work})
    for turn in range(repeat + 1):
        for name, do in work.items():
            began, worked = time.perf_counter(), time.process_time()
            do()
            if turn:
                found.seconds[name].append(round(time.perf_counter() - began, 4))
                found.processor[name].append(round(time.process_time() - worked, 4))
    return found


KINDS = (("h11", "/h11/"), ("httpcore2", "/httpcore2/"), ("json", "/json/"), ("tunesift", "/tunesift/"),
         ("sqlite", "sqlite3"), ("pydantic", "pydantic"), ("sockets", "_socket"), ("threads", "threading"),
         ("futures", "/concurrent/"))  # fmt: skip


def shares(do: Callable[[], object]) -> dict[str, float]:
    """Where the processor's time of this thread goes, by library; the profiler's own cost weighs on small functions."""
    profile = cProfile.Profile(time.thread_time)
    profile.runcall(do)
    spent: defaultdict[str, float] = defaultdict(float)
    for (path, _, name), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        place = f"{path}/{name}"
        spent[next((kind for kind, mark in KINDS if mark in place), "Python itself")] += own
    total = sum(spent.values())
    return {kind: round(own / total, 3) for kind, own in sorted(spent.items(), key=lambda pair: -pair[1])}


def commit_ms() -> float:
    """Milliseconds of one commit as journal and ledger make them, on the disk that they are measured on."""
    with TemporaryDirectory() as folder, closing(sqlite3.connect(Path(folder) / "a.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE a (b)")
        times = []
        for number in range(100):
            began = time.perf_counter()
            db.execute("INSERT INTO a VALUES (?)", (number,))
            times.append(time.perf_counter() - began)
    return round(statistics.median(times) * 1000, 2)


def bounds(url: str, calls: int, found: Measured, flight: int) -> dict[str, Any]:
    """What a call costs, and where that goes: one thread that asks, and the one that keeps the journal meanwhile."""
    cost = {
        name: round(statistics.median(times) / calls * 1e6)
        for name, times in found.processor.items()
        if not name.startswith("bare")
    }
    return {
        "processor_us_per_call": cost,
        "of a call": shares(lambda: ours_here(url, calls)),
        "of the thread that keeps the journal": shares(lambda: journalled(url, flight, calls)),
        "commit_ms": commit_ms(),
    }


def ours_here(url: str, calls: int) -> None:
    """The same calls from this thread."""
    ask = Ask(model=HttpModel(url=url, model="fast", concurrency=1))
    for number in range(calls):
        ask([Question(str(number))])


def versions() -> dict[str, str]:
    found = {}
    for name in ("tunesift", "httpcore2", "openai"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="few calls, once, into no file")
    options = parser.parse_args()
    calls, repeat, flights = (64, 1, (8,)) if options.smoke else (options.calls, options.repeat, (1, 8, 32, 128))
    with TemporaryDirectory() as folder, serving(Path(folder)) as server:
        work: dict[str, Callable[[], object]] = {}
        for flight in flights:
            work[f"bare sockets, {flight}"] = lambda n=flight: bound(server, n, calls)  # type: ignore[misc]
            work[f"ours, {flight}"] = lambda n=flight: ours(server.url, n, calls)  # type: ignore[misc]
            if flight > 1:  # a journal of chunks of one item: what a stage does where calls run at once
                work[f"ours with a journal, {flight}"] = lambda n=flight: journalled(server.url, n, calls)  # type: ignore[misc]
                work[f"ours with journal and ledger, {flight}"] = lambda n=flight: booked(server.url, n, calls)  # type: ignore[misc]
            if "openai" in versions():
                work[f"openai, {flight}"] = lambda n=flight: theirs(server.url, n, calls)  # type: ignore[misc]
        measured = measure(work, repeat)
        bound_by = bounds(server.url, calls, measured, flights[-1])
    found = {
        "command": "python benchmarks/endpoint.py", "calls": calls,
        "calls_per_s": {name: round(calls / statistics.median(times)) for name, times in measured.seconds.items()},
        "bounds": bound_by, "seconds": measured.seconds,
        "processors": os.cpu_count(), "machine": platform.machine(), "versions": versions(),
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    if not options.smoke:
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / "endpoint.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
