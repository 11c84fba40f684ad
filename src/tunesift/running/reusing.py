"""What may a run take over from another? What stages of the same settings made of items of the same id and content."""

from __future__ import annotations

import logging
import os
from contextlib import closing
from pathlib import Path

from tunesift.errors import ResumeError, RunError
from tunesift.running.database import FORMAT, named
from tunesift.running.fsio import read_json
from tunesift.running.journal import Journal

_LOG = logging.getLogger(__name__)


def reuse(journal: Journal, folder: Path, other: Path) -> int:
    """Put by what the stages of another run made, failures aside; how many outcomes. Nothing once this run has begun.

    A stage that turns out to have other settings is done as if nothing had been put by. Raises `RunError` where there
    is no run to take from.
    """
    if not (other / "run.json").exists():
        raise RunError(f"{other}: is not a run's folder; name one to take from, such as kept.json.run.")
    if os.path.realpath(other) == os.path.realpath(folder):
        raise RunError(f"{other}: is this run's own folder; leave --reuse out, what it holds is not done again.")
    if read_json(other / "run.json").get("format") != FORMAT:
        raise ResumeError(f"{other}: is a run of another version, whose outcomes cannot be taken; leave --reuse out.")
    if journal.stages() or journal.reuses():
        return 0
    with closing(Journal(other, "look")) as there:
        count = sum(
            journal.put_by(stage, named(there.db, stage)[1], (e for e in there.entries(stage) if e.failure is None))
            for stage in there.stages()
        )
    _LOG.info("%d outcomes are put by from %s", count, other)
    return count
