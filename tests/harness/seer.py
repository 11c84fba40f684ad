"""One life of a run of the page `sima`: `python tests/harness/seer.py HOME NAME`, with an input in HOME.

The model answers by rule and takes its time. Everything it is asked is appended to `work.log` beside the home, and each
comparison is printed when it begins, so that whoever looks on can kill this process in the middle of one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesift import Completion, Dataset, Message, Run, Sampling, ScriptedModel, Sima, read_dataset
from tunesift.running.local import Local
from tunesift.writing import write_new

LOG = "work.log"


@dataclass(frozen=True, kw_only=True)
class Seer(ScriptedModel):
    """Answers otherwise when it draws, and finds the shorter answer better, wherever it stands."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        return [self._seen(conversation[-1].text, sampling) for conversation in conversations]

    def _seen(self, text: str, sampling: Sampling) -> Completion:
        _, compares, item = text.partition("Now compare these:")
        if not compares:
            _noted(f"{'sampled' if sampling.temperature else 'greedy'} {text}")
            return Completion("A long answer." if sampling.temperature else f"{text} Short.", "stop", 3)
        question, _, first, second = (part.partition("\n</given-")[0] for part in item.split(">\n")[1::2])
        _noted(f"compare {question} {'greedy' if 'Short' in first else 'sampled'}-first")
        print("compare", flush=True)
        time.sleep(0.05)
        return Completion(f"It is shorter.\n[[{1 if len(first) < len(second) else 2}]]", "stop", 3)


def _noted(what: str) -> None:
    with (HOME.parent / LOG).open("a") as log:
        log.write(f"{NAME} {what}\n")


if __name__ == "__main__":
    HOME, NAME = Path(sys.argv[1]), sys.argv[2]
    data: Dataset = read_dataset(HOME / "in.jsonl")
    with Run(HOME / "run", Local(chunk=1)) as run:
        found = Sima(student=Seer(), tuner=None)(data, run)
        run.finish(data, found.decisions)
        assert found.data is not None
        write_new(found.data, HOME / "output.jsonl", "preference")
