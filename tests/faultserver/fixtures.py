"""What tests of endpoints share: the scripted server, a clock that runs fast, a tokenizer whose numbers are bytes."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Condition
from typing import Any
from urllib.parse import quote

import pytest

from faultserver.client import FaultServer, serving
from tunesift import HttpModel
from tunesift.books import SHELF, Asking, Attempt
from tunesift.models import endpoint
from tunesift.models.turnstile import Clock

KEY = 'sk-canary-8f3a+/=Z?q"0d1e2f'
"""A key with every character that some spelling of it changes."""
_NAMES = count()


def spellings(key: str = KEY) -> list[str]:
    """Ways in which a key could be written somewhere."""
    coded = base64.b64encode(key.encode()).decode()
    return [key, key[::-1], coded, quote(key, safe=""), quote(key), json.dumps(key)[1:-1]]


class FastClock(Clock):
    """Time that runs so many times as fast."""

    def __init__(self, speed: float = 2000.0) -> None:
        self.speed = speed

    def now(self) -> float:
        return time.monotonic() * self.speed

    def wait(self, condition: Condition, seconds: float) -> None:
        condition.wait(seconds / self.speed)


@dataclass
class Ledger:
    """Books of a test."""

    asked: list[Asking]
    done: list[Attempt]

    def reserve(self, asking: Asking) -> None:
        self.asked.append(asking)

    def reserve_together(self, askings: Sequence[Asking]) -> None:
        self.asked.extend(askings)

    def check(self, asking: Asking) -> None:
        """Anything may be sent."""

    def adopt(self, askings: Sequence[Asking]) -> None:
        self.asked.extend(askings)

    def settle(self, attempt: Attempt) -> None:
        self.done.append(attempt)


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def server(one_server: FaultServer) -> FaultServer:
    """A server that answers everything, until it is told otherwise."""
    one_server.script()
    return one_server


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> FastClock:
    """Pauses last a moment; deadlines of sockets stay what they are."""
    clock = FastClock()
    monkeypatch.setattr(endpoint, "CLOCK", clock)
    return clock


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """Books that are kept for the length of a test."""
    books = Ledger([], [])
    with SHELF.keeping(books):
        yield books


Make = Callable[..., HttpModel]


@pytest.fixture
def make(server: FaultServer, monkeypatch: pytest.MonkeyPatch, byte_tokenizer: Path) -> Make:
    """A model at the server, of a name that no test has used, with the canary key."""
    monkeypatch.setenv("CANARY_KEY", KEY)

    def model(**settings: Any) -> HttpModel:
        given = {"url": server.url, "model": f"m{next(_NAMES)}", "key_env": "CANARY_KEY", "timeout_s": 10.0}
        return HttpModel(**(given | {"tokenizer": str(byte_tokenizer)} | settings))

    return model


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer whose token numbers are bytes, and 256 for the beginning, so that the server can read along."""
    pytest.importorskip("transformers", reason='needs the "local" extra')
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    odd = [b for b in range(256) if b not in plain]
    words = {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(odd)}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>"])
    folder = tmp_path_factory.mktemp("bytes")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text("{}")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
