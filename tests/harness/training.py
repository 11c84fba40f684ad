"""A tiny student with a chat template, and records it can learn from, for tests that train."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.tiny import MakeTiny
from tunesift import Dataset, Message, Record, TransformersModel
from tunesift.running.step import Checkpoint
from tunesift.running.training import MODEL
from tunesift.tuning.base import Training
from tunesift.tuning.child import LEARNERS
from tunesift.tuning.process import Trained, told
from tunesift.tuning.trainer import Job, train

CHATML = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""A template whose prompt is a prefix of the whole, with an end of turn and a line feed behind it, as ChatML's."""
THINKING = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}"
    "{% if loop.last and m['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'].split('</think>')[-1].strip() }}{{ eos_token }}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""A template that writes an answer otherwise than it was given: an empty thought before it, as Qwen3's, without the
thoughts and the spaces that it came with, and without the BOS token that the tokenizer adds."""


def record(id: str, instruction: str = "Say hello.", response: str = "Hello there.") -> Record:
    """A record of one turn."""
    return Record(id, (Message("user", instruction), Message("assistant", response)))


def student(make_tiny: MakeTiny, template: str | None = CHATML, **shape: int) -> Path:
    """The folder of a tiny Llama with this chat template."""
    folder = make_tiny("llama", **shape)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))
    return folder


def sums(count: int, first: int = 0) -> Iterable[Record]:
    """Records that a few hundred updates teach: which letter follows another."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    for n in range(first, first + count):
        begin = letters[n % 26]
        rest = " ".join(letters[(n + k) % 26] for k in range(1, 6 + n % 3))
        yield record(f"r{n:04}", f"What comes after {begin}? Number {n}.", rest)


def letters(count: int, first: int = 0) -> Dataset[Record]:
    """The same as a data set."""
    return Dataset.of(sums(count, first))


@dataclass
class Heard:
    """What a training says, in this process."""

    stopped: bool = False
    steps: list[int] = field(default_factory=list)
    beats: int = 0

    def at(self, step: int, of: int) -> None:
        self.steps.append(step)

    def say(self, **said: Any) -> None:
        self.beats += said.get("beat", False)


def here(
    place: Path, folder: Path, tuner: Training, data: Dataset[Any], heard: Heard | None = None
) -> Trained:  # Any: of what it reads
    """A training without a process of its own."""
    place.mkdir(exist_ok=True)
    with warnings.catch_warnings():  # what TRL, PEFT and transformers say to one another is theirs
        for kind in (FutureWarning, DeprecationWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        job = Job(TransformersModel(name=str(folder), device="cpu"), tuner, data, place)
        train(job, LEARNERS[tuner.kind](), heard or Heard())
    return told(Checkpoint(place / MODEL, ""))
