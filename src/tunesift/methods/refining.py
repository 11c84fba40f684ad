"""What holds for every method that rewrites records: which input it can have, and what is told of what it made."""

from __future__ import annotations

import logging
from collections import Counter
from statistics import median

from tunesift.datasets import Dataset
from tunesift.errors import DataError, RecipeError, shown
from tunesift.formats import PREFERENCE
from tunesift.records import Record, origins
from tunesift.running.run import Run
from tunesift.writing import source_of

LONG_ENOUGH = 20
"""Characters of a response from which its text in another field is no accident."""

_LOG = logging.getLogger(__name__)


def check_refinable(data: Dataset[Record], instructions: bool) -> None:
    """Refuse, before anybody is asked, data whose rewritten records could not be told apart, or would not fit.

    `instructions` says that instructions are rewritten: a preference pair's rejected answer would stand under another.
    """
    for id in data.ids():
        _, *earlier = origins(id)
        for begin in earlier:
            if data.place(begin) is not None:
                raise DataError(f'ids "{shown(begin)}" and "{shown(id)}": what is made of the first would be taken for '
                                'the second; write ids without "~".')  # fmt: skip
    if instructions and data.source is not None and data.source.format == PREFERENCE:
        raise RecipeError("the input holds preference pairs: their rejected answers would stand under new "
                          "instructions; use the method reflection with halves=response.")  # fmt: skip


def tell_refined(run: Run, data: Dataset[Record], output: Dataset[Record]) -> None:
    """Tell how lengths changed, in a table, and warn of fields that still hold what was replaced.

    Rewritten answers tend to be longer: median characters of what was replaced, before and after. A field that we do
    not read, such as Alpaca's ready-made `text`, stays as it was.
    """
    sizes: list[tuple[int, int, int, int]] = []
    stale: Counter[str] = Counter()
    for new in output:
        old = source_of(new.id, data)
        if old.id == new.id:
            continue
        sizes.append((len(old.prompt[-1].text), len(new.prompt[-1].text), len(old.response), len(new.response)))
        gone = old.response.strip()
        if len(gone) >= LONG_ENOUGH:
            stale.update(name for name, value in new.extra.items() if isinstance(value, str) and gone in value)
    if sizes:
        asked, asked_now, said, said_now = (float(median(column)) for column in zip(*sizes, strict=True))
        columns = {"instruction": (asked, asked_now), "response": (said, said_now)}
        run.table("lengths", ({"text": name, "median_before": before, "median_after": after, "records": len(sizes)}
                              for name, (before, after) in columns.items()))  # fmt: skip
    for name, count in stale.items():
        _LOG.warning('the field "%s" of %d records still holds the old response', shown(name), count)
