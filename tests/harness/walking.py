"""A method's page, walked over records in a folder, without files around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunesift import Dataset, Local, Record, Run
from tunesift.running.result import Method, Result


def walked(method: Method, folder: Path, records: Sequence[Record], seed: int = 0) -> Result:
    """What comes of it; however many of its calls fail."""
    data = records if isinstance(records, Dataset) else Dataset.of(records)
    with Run(folder, Local(), seed, max_failures=1.0) as run:
        result = method(data, run)
        run.finish(data, result.decisions)
    return result
