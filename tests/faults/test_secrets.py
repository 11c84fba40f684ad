"""Does a key stay in its variable, whatever an endpoint says, and does nobody here listen or fetch what data names?"""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from test_endpoint_matrix import CASES, Case, routes

import tunesift
from faultserver.client import FaultServer
from faultserver.fixtures import KEY, Make, spellings
from tunesift import DataError, Failure, Message, Sampling, read_dataset

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[1] / "harness" / "canary.py"
TOLD = " ".join(spellings())
ENDING = [c for c in CASES if " " in c.ends and not c.settings]
"""Cases that end a run: each is a run of its own."""
GOING_ON = [c for c in CASES if " " not in c.ends]
FIRST = 2000
"""Row of the first case; rows below are answered well, so that nonsense stays below a fifth."""


def spoken(case: Case, other: int) -> list[dict[str, Any]]:
    """What the case does, and says the key as it does so, in every spelling and wherever there is room for words."""
    do = {name: value for action in case.do for name, value in action.items()}
    do["headers"] = {"X-Echo": KEY} | do.get("headers", {})
    if "F31" in case.name:
        do["headers"]["Location"] = f"http://{KEY.replace('?', '')}@127.0.0.2:{other}/{KEY}"
    body = do.get("body", "")
    if body.startswith("text:{"):
        said = json.loads(body.removeprefix("text:"))
        said.get("error", said)["message"] = f"{said.get('error', {}).get('message', '')} {TOLD}"
        do["body"] = f"text:{json.dumps(said)}"
    elif body in ("", "ok", "truncated", "utf8", "twice", "nan", "infinity", "digits", "surrogate", "nanprob"):
        do["change"] = {"note": TOLD, "system_fingerprint": KEY} | do.get("change", {})
    elif body == "html":
        do["body"] = f"text:<html><title>Log in</title>{TOLD}</html>"
    return [{name: value} for name, value in do.items()]


class Watching:
    """Looks at the words every process of this machine was started with, as long as the block runs."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._over = Event()
        self._looking = Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes())
                except OSError:
                    continue  # it has ended meanwhile

    def __enter__(self) -> Watching:
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._looking.join()


def told(folder: Path, server: FaultServer, ends: int, *words: str) -> bytes:
    """Every byte a run left: files, output, and what processes were started with."""
    command = [sys.executable, str(PAGE), str(folder), server.url, *words]
    with Watching() as watching:
        done = subprocess.run(
            command, capture_output=True, timeout=200, env=os.environ | {"CANARY_KEY": KEY}, check=False
        )
    assert done.returncode == ends, done.stderr.decode(errors="replace")[-2000:]
    assert b"Traceback" not in done.stderr
    assert any(PAGE.name.encode() in words for words in watching.seen), "the run was seen among the processes"
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != ".reserve"]
    assert {p.name for p in files} >= {"state.db", "money.db"}
    everything = [done.stdout, done.stderr, *watching.seen, *(p.read_bytes() for p in files)]
    return b"\n".join(everything)


@pytest.mark.parametrize("route", ["chat", "completion", "draws", "stream"])
def test_S7_over_the_whole_matrix_a_key_is_in_no_byte_of_a_run(
    route: str, server: FaultServer, tmp_path: Path, byte_tokenizer: Path
) -> None:
    cases = [c for c in GOING_ON if route in routes(c)]
    rules = [
        {"match": {"row": FIRST + n, "nth_attempt": [1, c.first]}, "do": spoken(c, server.other)}
        for n, c in enumerate(cases)
    ]
    server.script(*rules)
    rows = [row for n in range(len(cases)) for row in (*range(20 * n, 20 * n + 20), FIRST + n)]
    everything = told(tmp_path / "run", server, 0, route, json.dumps(rows), str(byte_tokenizer))
    assert {line["row"] for line in server.rows() if line["row"] >= FIRST} == {FIRST + n for n in range(len(cases))}
    assert not [s for s in spellings() if s.encode() in everything], "a secret is told"
    assert b"listening: []" in everything, "S19: nobody here waits for connections"


@pytest.mark.parametrize(("case", "route"), [(c, r) for c in ENDING for r in routes(c)], ids=str)
def test_S7_where_the_matrix_ends_a_run_neither(
    case: Case, route: str, server: FaultServer, tmp_path: Path, byte_tokenizer: Path
) -> None:
    server.script({"match": {"row": FIRST, "nth_attempt": [1, case.first]}, "do": spoken(case, server.other)})
    rows, ends = json.dumps([1, FIRST]), int(case.ends.split()[1])
    everything = told(tmp_path / "run", server, ends, route, rows, str(byte_tokenizer))
    assert not [s for s in spellings() if s.encode() in everything], "a secret is told"


ADDRESSES = [
    "http://127.0.0.1:PORT/x.png", "http://localhost:PORT/x.png", "http://127.0.0.2:OTHER/x.png", "http://0.0.0.0:PORT/x.png",
    "http://[::1]:PORT/x.png", "http://[::ffff:127.0.0.1]:PORT/x.png", "http://[::ffff:7f00:1]:PORT/x.png",
    "http://2130706433:PORT/x.png", "http://0x7f000001:PORT/x.png", "http://0177.0.0.1:PORT/x.png", "http://127.1:PORT/x.png",
    "http://127.0.0.1.nip.io:PORT/x.png", "http://localtest.me:PORT/x.png", "http://169.254.169.254/latest/meta-data/",
    "http://metadata.google.internal/computeMetadata/v1/", "http://100.100.100.200/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/", "http://10.0.0.1/x.png", "http://172.16.0.1/x.png", "http://192.168.0.1/x.png",
    "http://[fe80::1]/x.png", "http://[fc00::1]/x.png", "http://0/x.png", "http://user@127.0.0.1:PORT/x.png",
    "http://example.com@127.0.0.1:PORT/x.png", "http://127.0.0.1:PORT#@example.com/x.png", "https://127.0.0.1:PORT/x.png",
    "HTTP://127.0.0.1:PORT/x.png", "//127.0.0.1:PORT/x.png", "http:/127.0.0.1:PORT/x.png", "http:\\\\127.0.0.1:PORT\\x.png",
    "file:///etc/passwd", "file://127.0.0.1/etc/passwd", "ftp://127.0.0.1:PORT/x.png", "gopher://127.0.0.1:PORT/_x",
    "dict://127.0.0.1:PORT/x", "data:text/html,<script>", "s3://bucket/x.png", "hf://datasets/x/y.png",
    "http://①②⑦.⓪.⓪.①:PORT/x.png",
]  # fmt: skip


def test_there_are_forty_of_them() -> None:
    assert len(set(ADDRESSES)) == 40


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every name that is looked up and every address that is connected to."""
    found: list[object] = []
    look, connect = socket.getaddrinfo, socket.socket.connect

    def looked(host: Any, *given: Any, **options: Any) -> Any:
        found.append(host)
        return look(host, *given, **options)

    def connected(self: socket.socket, address: Any) -> None:
        found.append(address)
        connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", looked)
    monkeypatch.setattr(socket.socket, "connect", connected)
    return found


def test_S8_no_address_in_data_is_ever_connected_to(
    make: Make, server: FaultServer, tmp_path: Path, reached: list[object]
) -> None:
    named = [a.replace("PORT", str(server.port)).replace("OTHER", str(server.other)) for a in ADDRESSES]
    model = make(images=tmp_path)
    with socket.socket() as probe:
        probe.connect(("127.0.0.1", server.port))
    assert reached == [("127.0.0.1", server.port)], "a connection would be seen"
    made = model.chat([[Message("user", "row=3", images=(name,))] for name in named], Sampling())
    assert all(isinstance(m, Failure) and m.message.startswith("E638") for m in made)
    said = model.chat([[Message("user", f"row={n} see {name}")] for n, name in enumerate(named)], Sampling())
    assert not [m for m in said if isinstance(m, Failure)], "text stays text"
    rows = [{"instruction": f"{n} <image>", "output": "y", "images": [name]} for n, name in enumerate(named)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="images are not fetched from"):
        read_dataset(tmp_path / "a.jsonl")
    assert set(reached) == {("127.0.0.1", server.port), "127.0.0.1"}, "the endpoint's own address, and its name"
    assert {(line["host"], line["route"]) for line in server.lines()} == {("127.0.0.1", "/v1/chat/completions")}
    assert len(server.lines()) == 1 + len(named)


def test_S19_no_line_of_the_package_listens() -> None:
    serving, wrong, sockets = ("http.server", "socketserver", "asyncio", "uvicorn", "multiprocessing"), [], set()
    for path in sorted(Path(tunesift.__file__).parent.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        imported = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        imported |= {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}
        called = {ast.unparse(n.func).rpartition(".")[2] for n in nodes if isinstance(n, ast.Call)}
        wrong += [f"{path.name}: {name}" for name in imported if name.startswith(serving)]
        if "socket" in imported:
            sockets.add(path.name)
            wrong += [f"{path.name}: {name}" for name in called & {"bind", "listen", "create_server", "accept"}]
    assert wrong == []
    assert sockets == {"transport.py", "locking.py"}, "one connects, one asks what this machine is called"
