"""A model over HTTP is the same model: against `transformers serve`, and against its own weights behind a small server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import httpx2
import pytest

from harness.tiny import MakeTiny
from tunesift import (
    Completion,
    HttpModel,
    Message,
    ModelError,
    ParameterRefused,
    Sampling,
    Span,
    TargetLoss,
    TransformersModel,
)

CONVERSATIONS = [[Message("user", text)] for text in ("hi", "Count to ten.", "the theorem in thé text", "x" * 90)]


@pytest.fixture(scope="module")
def served(make_tiny: MakeTiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A tiny model, and the address at which `transformers serve` serves it."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("transformers", path=beside)
    if program is None or not all(find_spec(name) for name in ("fastapi", "uvicorn", "accelerate")):
        pytest.skip('needs "transformers[serving]" and accelerate')
    folder = make_tiny()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = tmp_path_factory.mktemp("serve") / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | {"HF_HUB_OFFLINE": "1"}) as process,
    ):
        try:
            for _ in range(600):
                if process.poll() is not None or answers(f"http://127.0.0.1:{port}/health"):
                    break
                time.sleep(0.1)
            assert process.poll() is None, log.read_text()
            yield folder, f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=1.0, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


@pytest.mark.slow
def test_a_server_that_we_did_not_write_answers_as_its_weights_do(served: tuple[Path, str]) -> None:
    folder, url = served
    sampling = Sampling(max_tokens=12)
    alone = TransformersModel(name=str(folder)).chat(CONVERSATIONS, sampling)
    for stream in (False, True):
        model = HttpModel(url=url, model=str(folder), stream=stream)
        over = [c for c in model.chat(CONVERSATIONS, sampling) if isinstance(c, Completion)]
        # The server holds back bytes at the end that are no whole letter yet.
        assert [c.text.rstrip("\ufffd") for c in over] == [c.text.rstrip("\ufffd") for c in alone]
        assert [(c.stop, c.tokens) for c in over] == [(c.stop, c.tokens) for c in alone]
    with pytest.raises(ParameterRefused, match="even a short request"):
        HttpModel(url=url, model=str(folder), tokenizer=str(folder)).loss([Span("a", "b")])
    with pytest.raises(ModelError, match="another-model"):
        HttpModel(url=url, model="another-model").preflight()


@pytest.fixture(scope="module")
def losses(make_tiny: MakeTiny) -> Iterator[tuple[Path, str]]:
    """A tiny model, and a server that says of every token of a prompt what its weights say."""
    import torch
    from transformers import AutoModelForCausalLM

    folder, lock = make_tiny(seed=3), Lock()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def choice(index: int, ids: list[int]) -> dict[str, Any]:
        with lock, torch.inference_mode():
            rows = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        found = [None] + [float(rows[at, id]) for at, id in enumerate(ids[1:])]
        return {"index": index, "text": "", "finish_reason": "length", "logprobs": {"token_logprobs": found}}

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = {"model": asked["model"], "choices": [choice(n, ids) for n, ids in enumerate(asked["prompt"])]}
            body = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def test_losses_over_http_are_losses_in_process(losses: tuple[Path, str]) -> None:
    folder, url = losses
    texts = ["", "a", "the theory", " thin \n\n", "émigré 🙂", "ends with space "]
    spans = [Span(context, target, seam=seam, bos=bos) for context in texts for target in texts[1:]
             for seam in ("separate", "joint") for bos in ("always", "tokenizer")]  # fmt: skip
    spans += [Span((Message("user", "the question"),), "the answer"), Span("a long context", "target", limit=9)]
    here = TransformersModel(name=str(folder)).loss(spans)
    there = HttpModel(url=url, model="tiny", tokenizer=str(folder)).loss(spans)
    assert len(here) == len(there) > 100
    for span, ours, over in zip(spans, here, there, strict=True):
        assert isinstance(ours, TargetLoss), span
        assert isinstance(over, TargetLoss), span
        assert over.truncated == ours.truncated
        assert over.nats == pytest.approx(ours.nats, abs=1e-4), span


def test_a_rating_by_next_tokens_is_losses_of_targets_of_one_token(losses: tuple[Path, str]) -> None:
    folder, url = losses
    spans = [Span("How good is it, from 1 to 5? ", digit) for digit in "12345"]
    here = TransformersModel(name=str(folder)).loss(spans)
    there = HttpModel(url=url, model="tiny", tokenizer=str(folder)).loss(spans)
    for ours, over in zip(here, there, strict=True):
        assert isinstance(ours, TargetLoss)
        assert isinstance(over, TargetLoss)
        assert len(over.nats) == 1
        assert over.nats == pytest.approx(ours.nats, abs=1e-4)
