"""What has been trained in a run, with which settings, on which data? Each stage has a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesift.datasets import Dataset
from tunesift.errors import ResumeError, RunError
from tunesift.heartbeat import beat
from tunesift.running.fsio import make_folder, read_json, refuse_link, storage_errors, write_json
from tunesift.running.journal import refuse_others
from tunesift.running.progress import Progress
from tunesift.running.sealing import sealed
from tunesift.running.step import Checkpoint, Tuner
from tunesift.running.stopping import Stop
from tunesift.settings import Json, digest

CHECKPOINTS = "checkpoints"
"""Folder of the trainings of a run."""
CHECKPOINT = "checkpoint"
"""What the folders of checkpoints are called, within a stage's, before their step."""
MODEL = "model"
"""Folder, within a stage's, of what was trained."""
DATA = "data"
"""The records that are trained on, until the model is there."""
BEGUN = "begun.json"
"""With which settings, and on which data, a stage was begun."""


@dataclass
class Watching:
    """Tells who listens how far a training is, and the training when the run is to stop."""

    progress: Progress
    stop: Stop
    stage: str
    note: Callable[[int, int], None]
    """Told the same, for whoever looks at the folder from outside."""
    first: int = -1
    """Steps that were done in an earlier life; below 0 before the first word."""
    last: int = 0
    of: int = 0
    """Steps that there will be."""

    @property
    def stopped(self) -> bool:
        """Whether somebody wants the run to end."""
        return self.stop.asked

    def at(self, step: int, of: int) -> None:
        """So many steps are done; the first time, by an earlier life."""
        beat()
        self.of = of
        if self.first < 0:
            self.first = self.last = step
            self.progress.chunk, self.progress.unit = 1, "update"
            self.progress.begin(self.stage, of, step)
            return
        self.progress.advance(self.stage, step - self.last, 0)
        self.last = step
        self.note(step, of)


def begin(folder: Path, stage: str, settings: Json, data: Dataset[Any]) -> str:  # Any: of any kind of item
    """Write down what a stage is begun with, or compare it with what it was begun with; returns the digest of both.

    Raises `ResumeError` where settings or data are others.
    """
    given: dict[str, Json] = {"settings": settings, "data": data.digest()}
    refuse_link(folder.parent)
    refuse_link(folder)
    with storage_errors(folder):
        make_folder(folder)
    if not (folder / BEGUN).exists():
        write_json(folder / BEGUN, given)
        return digest(given)
    old = read_json(folder / BEGUN)
    refuse_others(stage, old["settings"], settings)
    if old["data"] != data.digest():
        raise ResumeError(f'stage "{stage}" was started on other records; use another folder, or go back.')
    return digest(given)


def finished(folder: Path, made_of: str) -> Checkpoint | None:
    """The model that a stage has trained; None where it has not."""
    return Checkpoint(folder / MODEL, made_of) if sealed(folder / MODEL) is not None else None


def train(tuner: Tuner, data: Dataset[Any], folder: Path, watching: Watching) -> None:  # Any: of any kind of item
    """Train into a stage's folder; raises `Stopped` where that was asked for, `RunError` where no model came of it."""
    try:
        tuner(data, folder, watching)
    finally:
        if watching.first >= 0:
            watching.progress.end(watching.stage)
    if sealed(folder / MODEL) is None:
        watching.stop.check(folder.parent.parent)
        raise RunError(f'stage "{watching.stage}": the tuner left no model; this is a fault of it.')


def updates_done(run: Path) -> dict[str, int]:
    """How many updates every training of a run has made: those of its model, or up to its newest whole checkpoint."""
    done: dict[str, int] = {}
    for stage in trainings(run):
        folder = run / CHECKPOINTS / stage
        model, saved = sealed(folder / MODEL), map(sealed, folder.glob(f"{CHECKPOINT}-*"))
        done[stage] = model["steps"] if model else max((said["step"] for said in saved if said), default=0)
    return done


def trainings(run: Path) -> list[str]:
    """Stages of a run's trainings that were begun, by name."""
    return sorted(path.parent.name for path in (run / CHECKPOINTS).glob(f"*/{BEGUN}"))
