"""What does `tune` cost beside TRL's own trainer? Seconds of an update and memory, side by side on one model.

    python benchmarks/tuning.py --data DATA [--updates 40] [--repeats 3] [--student FOLDER]

Either way trains in a process of its own, on the same records in the same order with the same settings: once by a
script of a few lines that gives the records to TRL's SFTTrainer, once by `Run.once`. The first quarter of the updates
is not counted. The forecast of `tunesift plan` stands beside the memory that either took beyond its libraries.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from measuring import child, here
from measuring import told as show

import tunesift
from tunesift import SFT, Run, TransformersModel, Tuning, read_dataset
from tunesift.models.turns import Encoded, Encoder
from tunesift.running.local import Local
from tunesift.running.progress import Progress
from tunesift.tuning.forecast import forecast
from tunesift.tuning.process import told

BATCH = 8


def tuner(updates: int) -> SFT:
    """The settings of both."""
    return SFT(batch=BATCH, device_batch=BATCH, steps=updates, max_length=512, save_every=10**6,
               gradient_checkpointing=False)  # fmt: skip


class Clock(Progress):
    """Notes when each update is done."""

    def __init__(self) -> None:
        self.at = [time.perf_counter()]

    def advance(self, stage: str, items: int, failed: int) -> None:
        self.at.append(time.perf_counter())


def ours(student: str, data: Path, updates: int) -> dict[str, float]:
    """By `Run.once`."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as home, Run(Path(home), Local(), progress=clock) as run:
        tuning = Tuning(student=TransformersModel(name=student), tuner=tuner(updates))
        found = told(run.once("tune", tuning, read_dataset(data)))
    return {"seconds": counted(clock.at), "peak_mb": found.peak_bytes / 1e6, "loss": found.history[-1]["loss"]}


def theirs(student: str, data: Path, updates: int) -> dict[str, float]:
    """By a script of TRL's own, in this process."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    at: list[float] = []
    losses: list[float] = []

    class Clocking(TrainerCallback):
        def on_train_begin(self, *given: Any, **more: Any) -> None:
            at.append(time.perf_counter())

        def on_step_end(self, *given: Any, **more: Any) -> None:
            at.append(time.perf_counter())

        def on_log(self, *given: Any, logs: Any, **more: Any) -> None:
            losses.extend([logs["loss"]] if "loss" in logs else [])

    rows = [{"prompt": [{"role": "user", "content": r.messages[0].text}],
             "completion": [{"role": "assistant", "content": r.response}]} for r in read_dataset(data)]  # fmt: skip
    with tempfile.TemporaryDirectory() as home:
        settings = SFTConfig(
            output_dir=home, max_steps=updates, per_device_train_batch_size=BATCH, learning_rate=2e-5,
            lr_scheduler_type="cosine", warmup_steps=0.03, max_length=512, bf16=False, use_cpu=True, seed=0,
            data_seed=0,
            activation_checkpointing=False, save_strategy="no", logging_steps=1, report_to="none", disable_tqdm=True,
        )  # fmt: skip
        SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(student, dtype="float32"), args=settings,
            train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(student),
            callbacks=[Clocking()],
        ).train()  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {"seconds": counted(at), "peak_mb": peak, "loss": losses[-1]}


def libraries() -> dict[str, float]:
    """What importing all of it takes."""
    import datasets  # noqa: F401  for its weight
    import peft  # noqa: F401  for its weight
    from trl import SFTTrainer  # noqa: F401  for its weight

    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6}


def counted(at: list[float]) -> float:
    """Median seconds between two updates, the first quarter aside."""
    steps = [after - before for before, after in itertools.pairwise(at)]
    return statistics.median(steps[len(steps) // 4 :])


def fitting(student: str, data: Path, place: Path) -> tuple[int, int, int]:
    """Write 400 records that neither way leaves out or cuts; how many, their tokens, and the longest."""
    from tunesift.models.folders import tokenizer

    encode = Encoder(tokenizer(student), "chat")
    rows = []
    for record in read_dataset(data / "alpaca_gpt4" / "alpaca_gpt4_en.json"):
        found = encode(record)
        if isinstance(found, Encoded) and len(found.ids) <= 400:
            rows.append((len(found.ids), {"instruction": record.messages[0].text, "output": record.response}))
    place.write_text(json.dumps([row for _, row in rows]))
    return len(rows), sum(size for size, _ in rows), max(size for size, _ in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds alpaca_gpt4/")
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--student", default=str(Path(tunesift.__file__).parent / "assets" / "scorer"))
    parser.add_argument("--smoke", action="store_true", help="two updates, once, to see that it runs")
    parser.add_argument("--way", help="for the processes that this one begins")
    given = parser.parse_args()
    if given.way:
        ways = {"ours": ours, "theirs": theirs}
        with redirect_stdout(sys.stderr):  # libraries print what they log
            way = ways.get(given.way)
            said = way(given.student, given.data, given.updates) if way else libraries()
        print(json.dumps(said))
        return
    if given.smoke:
        given.updates, given.repeats = 2, 1
    with tempfile.TemporaryDirectory() as home:
        rows = Path(home) / "rows.json"
        count, tokens, longest = fitting(given.student, given.data, rows)
        words = ["--data", str(rows), "--updates", str(given.updates), "--student", given.student, "--way"]
        found: dict[str, list[dict[str, float]]] = {"theirs": [], "ours": []}
        for _ in range(given.repeats):
            for way, runs in found.items():
                runs.append(child(__file__, *words, way))
        alone = child(__file__, *words, "libraries")["peak_mb"]
    middle = {
        way: {name: statistics.median(run[name] for run in runs) for name in runs[0]} for way, runs in found.items()
    }
    guess = forecast(TransformersModel(name=given.student), tuner(given.updates), count, tokens, longest)
    result = {
        **here(), "runs": found, "medians": middle,
        "seconds, ours to theirs": middle["ours"]["seconds"] / middle["theirs"]["seconds"],
        "memory, ours to theirs": middle["ours"]["peak_mb"] / middle["theirs"]["peak_mb"],
        "memory beyond the libraries, MB": {way: one["peak_mb"] - alone for way, one in middle.items()},
        "forecast, MB": (guess.memory or 0) / 1e6,
    }  # fmt: skip
    show(result, "tuning", given.smoke)


if __name__ == "__main__":
    main()
