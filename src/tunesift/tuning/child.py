"""The process that trains: reads what is asked from its input, says line by line how far it is, leaves a sealed model.

Its output belongs to those lines; whatever libraries print goes to the log. It ends when its input does, so that it
never outlives the run that began it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from pydantic import TypeAdapter

from tunesift.datasets import open_dataset
from tunesift.errors import DiskFull, TunesiftError, TuningError, first_line
from tunesift.models.transformers import TransformersModel, TunedModel, out_of_memory
from tunesift.models.vision import VisionModel
from tunesift.running.fsio import is_full
from tunesift.tuning import AnyTuner
from tunesift.tuning.dpo_trainer import DPOLearner
from tunesift.tuning.process import LOG
from tunesift.tuning.reward_trainer import RewardLearner
from tunesift.tuning.sft_trainer import SFTLearner
from tunesift.tuning.trainer import Job, Learner, train
from tunesift.tuning.vision_dpo_trainer import VisionDPOLearner

_NO_ROOM = (
    "No space left on device",
    "os error 28",
    "PytorchStreamWriter failed",
    "file write failed",
    "iostream error",
    "unexpected pos",
)
"""What the libraries that write weights say where the disk is full; their errors have no number."""
LEARNERS: Mapping[str, type[Learner]] = {
    "sft": SFTLearner, "dpo": DPOLearner, "vision-dpo": VisionDPOLearner, "reward": RewardLearner,
}  # fmt: skip
"""By the kind of the tuner."""
_STUDENTS: Mapping[str, type[TransformersModel]] = {"transformers": TransformersModel, "vision": VisionModel}
"""By the kind of the model."""


@dataclass
class Channel:
    """What is said to the run that began us, and what it says."""

    out: TextIO
    stopped: bool = False
    """Whether the run wants us to save and end."""
    step: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, **said: Any) -> None:  # Any: JSON
        """One line."""
        with self.lock:
            self.out.write(json.dumps(said) + "\n")
            self.out.flush()

    def at(self, step: int, of: int) -> None:
        """So many steps are done."""
        self.step = step
        self.say(step=step, of=of)

    def listen(self) -> None:
        """Until the input ends: then the run is no more, and nothing here is wanted."""
        for line in sys.stdin:
            self.stopped |= line == "stop\n"
        os._exit(1)


def on_one_gpu(device: str, environment: MutableMapping[str, str]) -> str:
    """Let the libraries see the one GPU that is asked for, the first for `auto`; what it is called then.

    With several in sight and one process, transformers would divide every batch among them.
    """
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cuda"):
        return device
    seen = environment.get("CUDA_VISIBLE_DEVICES")
    names = seen.split(",") if seen else []
    place = int(number or 0)
    if seen is None or place < len(names):
        environment["CUDA_VISIBLE_DEVICES"] = names[place] if names else str(place)
        return kind
    return device


def main() -> None:
    """Train what is asked for; a failure is said in a line."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())
    channel = Channel(out)
    threading.Thread(target=channel.listen, daemon=True).start()
    kind = TunedModel if "place" in asked["student"] else _STUDENTS[asked["student"]["kind"]]
    student = TypeAdapter(kind).validate_json(json.dumps(asked["student"]))
    tuner = TypeAdapter(AnyTuner).validate_json(json.dumps(asked["tuner"]))
    student = replace(student, device=on_one_gpu(student.device, os.environ))
    into = Path(asked["into"])
    try:
        data = open_dataset(Path(asked["data"]), tuner.reads)
        train(Job(student, tuner, data, into), LEARNERS[tuner.kind](), channel)
    except TunesiftError as error:
        channel.say(error=type(error).__name__, message=str(error))
    except Exception as error:  # whatever a library raises is told, before it is raised on into the log
        found = _ours(error, tuner, into, channel.step)
        channel.say(error=type(found).__name__, message=str(found))
        raise
    else:
        channel.say(ended=True)


def _ours(error: Exception, tuner: AnyTuner, into: Path, step: int) -> TunesiftError:
    """What a library's error means to the user; where that is not known, its own words, and where there are more."""
    if out_of_memory(error):
        held = f"{tuner.parts[0]} records on the device"
        return TuningError(f"{into}: out of memory after step {step} with {held}; lower tuner.device_batch or "
                           "tuner.max_length, or set tuner.lora.")  # fmt: skip
    if is_full(error, into) or any(words in str(error) for words in _NO_ROOM):
        return DiskFull(f"{into}: no room for a checkpoint after step {step} ({first_line(error)}); make room on the "
                        "disk and start again.")  # fmt: skip
    said = f"{type(error).__name__}: {first_line(error)}"
    return TuningError(f"{into}: the training failed after step {step} ({said}); {LOG} there says more.")


if __name__ == "__main__":
    main()
