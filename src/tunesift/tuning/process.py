"""How does a training run beside us? In a process of its own, which can be asked to stop and takes nothing with it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tunesift import errors
from tunesift.datasets import Dataset, write_dataset
from tunesift.errors import TunesiftError, TuningError, shown
from tunesift.heartbeat import beat
from tunesift.models.loading import put_away
from tunesift.models.transformers import TransformersModel, TunedModel
from tunesift.running.fsio import storage_errors
from tunesift.running.sealing import sealed, weights_of
from tunesift.running.step import Checkpoint, Watch
from tunesift.running.training import DATA
from tunesift.settings import Settings
from tunesift.tuning import AnyTuner
from tunesift.tuning.dpo import DPO
from tunesift.tuning.student import check_trainable

LOG = "log.txt"
"""What the libraries said, in a stage's folder."""
LOOK_S = 0.2
"""Seconds between two looks whether the run is to stop."""
_QUIET = {"TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
          "PYTHONUTF8": "1"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Tuning(Settings):
    """A student, and how it is tuned; what `Run.once` takes."""

    student: TransformersModel
    tuner: AnyTuner

    def __call__(self, data: Dataset[Any], into: Path, watch: Watch, /) -> None:  # Any: of what the tuner reads
        """Train in a process of its own, and leave the model in `into`; raises what the process says of its end."""
        check_trainable(self.student, self.tuner)
        put_away()  # the training needs the device for itself
        written = _written(data, into / DATA)
        asked = {"student": _as_json(self.student), "tuner": _as_json(_to_be_found(self.tuner)),
                 "data": str(written), "into": str(into.absolute())}  # fmt: skip
        with (into / LOG).open("ab") as log:
            child = _begun(log.fileno())
            try:
                _attend(child, json.dumps(asked), watch, into)
            finally:
                child.kill()
                child.communicate()


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training says of itself."""

    history: list[dict[str, float]]
    """Step by step: `loss` of what was trained on, or `eval_loss` of what was held out, in nats per token. With a loss
    stands `order`, 32 bits of a digest of the tokens that the update read: equal where two trainings read the same."""
    steps: int
    records: int
    """Records trained on."""
    left_out: Mapping[str, int]
    """Records that were not trained on, by the reason."""
    tokens: int
    """Tokens of an epoch, prompts included."""
    device: str
    precision: str
    peak_bytes: int
    """Most memory that was used: of the GPU, or of the process where there is none."""


def told(checkpoint: Checkpoint) -> Trained:
    """What the training of a finished checkpoint says of itself; raises `TuningError` where it is not whole."""
    said = sealed(checkpoint.path)
    if said is None:
        raise TuningError(f"{checkpoint.path}: is no whole checkpoint; start the run again.")
    return Trained(**{name: said[name] for name in Trained.__slots__})


def student_from(checkpoint: Checkpoint, like: TransformersModel) -> TransformersModel:
    """The tuned student, to be asked as `like` is; known by what it was made of and by its weights, wherever its folder
    is moved to: trained again elsewhere, they may be others."""
    known = f"tuned:{checkpoint.digest}:{weights_of(checkpoint.path)}"
    return TunedModel(
        name=known, place=str(checkpoint.path), dtype=like.dtype, max_length=like.max_length,
        device=like.device, batch_tokens=like.batch_tokens,
    )  # fmt: skip


def _to_be_found(tuner: AnyTuner) -> AnyTuner:
    """The tuner with a reference that was tuned in this run named by its folder, which the child can load."""
    if not isinstance(tuner, DPO) or not isinstance(tuner.reference, TunedModel):
        return tuner
    there = Path(tuner.reference.place).absolute()
    return replace(tuner, reference=TransformersModel(name=str(there), dtype=tuner.reference.dtype))


def _as_json(settings: Settings) -> Any:  # Any: JSON
    return TypeAdapter(type(settings)).dump_python(settings, mode="json")


def _written(data: Dataset[Any], folder: Path) -> Path:  # Any: of what the tuner reads
    """The records as a file of their own, which another process can map."""
    with storage_errors(folder):
        folder.mkdir(exist_ok=True)
        write_dataset(folder, data)
    return folder.absolute()


def _begun(log: int) -> subprocess.Popen[bytes]:
    """A child in a session of its own: a signal to our process group is not for it."""
    found = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **_QUIET}
    command = [sys.executable, "-P", "-m", "tunesift.tuning.child"]
    return subprocess.Popen(  # noqa: S603  no word of it is data
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, **found},
        start_new_session=True,
    )


def _attend(child: subprocess.Popen[bytes], asked: str, watch: Watch, into: Path) -> None:
    """Hear the child out; raises what it says of a failure, `TuningError` where it ends without a word."""
    assert child.stdin is not None
    with suppress(BrokenPipeError):
        child.stdin.write(asked.encode() + b"\n")
        child.stdin.flush()
    said, step = {}, 0
    for line in _lines(child, watch):
        said = json.loads(line)
        if "step" in said:
            step = said["step"]
            watch.at(step, said["of"])
        elif "error" in said:
            raise _error(said["error"], said["message"])
        beat()
    child.wait()
    if "ended" not in said:
        raise TuningError(_ended(child.returncode, step, into))


def _lines(child: subprocess.Popen[bytes], watch: Watch) -> Iterator[bytes]:
    """What the child says, line by line; passes the wish to stop on to it, once."""
    assert child.stdout is not None
    assert child.stdin is not None
    handle, open_, told_ = child.stdout.fileno(), bytearray(), False
    while True:
        if watch.stopped and not told_:
            told_ = True
            with suppress(BrokenPipeError):
                child.stdin.write(b"stop\n")
                child.stdin.flush()
        if not select.select([handle], [], [], LOOK_S)[0]:
            continue
        more = os.read(handle, 2**16)
        if not more:
            return
        *lines, rest = bytes(open_ + more).split(b"\n")
        open_ = bytearray(rest)
        yield from lines


def _error(name: str, message: str) -> TunesiftError:
    kind = getattr(errors, name, TuningError)
    return kind(message) if issubclass(kind, TunesiftError) else TuningError(message)


def _ended(code: int, step: int, into: Path) -> str:
    if code < 0:
        why = f"signal {-code} ended the training"
        more = ", as a machine without free memory does" if -code == signal.SIGKILL else ""
    else:
        why, more = f"the training ended with code {code}", f" ({shown(_last_line(into / LOG))})"
    return f"{into}: {why} after step {step}{more}; start again to go on from the last checkpoint."


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "without a word"
