"""Is a run's folder as it was written, and if not, what can be kept? And how are failures tried again?

Whatever is taken back waits in stock: when the page runs again, an item of the same id and content gets the outcome
it had, and only what is missing, or depends on what is missing, is done again.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal

from tunesift.disk import sync
from tunesift.errors import RunError, StorageError
from tunesift.inputs import path_of_text
from tunesift.running.database import LOST, SPOILT, record, said_identity, sound_rows, stock_up, transaction
from tunesift.running.fsio import digest, read_json, refuse_link, storage_errors
from tunesift.running.journal import STRANGE, Journal, is_lost, strangers
from tunesift.running.locking import lock, looked_at
from tunesift.running.parts import Entry, Label, Sealed, find, load
from tunesift.running.sealing import COMPLETE, spoilt
from tunesift.running.training import BEGUN, CHECKPOINTS, MODEL, trainings
from tunesift.settings import canonical

Cure = Literal["rebuild", "redo rows", "read again", "write again", "train again", "none"]

_READ = ("inputs/", "quarantine.parquet")
"""Files that come of reading the input."""
_CURES: Mapping[Cure, str] = {
    "rebuild": "the journal is built anew from its parts",
    "redo rows": "its rows will be done again",
    "read again": "the input will be read again",
    "write again": "it will be written again",
    "train again": "the model will be trained again",
    "none": "this cannot be repaired here",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing in a run's folder that is not as it was written."""

    said: str
    cure: Cure
    """What `repair` does about it: rebuild the journal from its parts, do the rows of a part again, read the input
    again, write what is made of the journal again, or nothing."""
    stage: str = ""
    part: int | None = None
    """Number of the part whose rows are lost; None where it is no part's."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was done about a damaged folder."""

    said: Sequence[str]
    """What was found and what was done about it, in sentences."""
    left: Sequence[Finding]
    """What cannot be repaired."""


def verify(folder: Path) -> list[Finding]:
    """Everything that is not as a run wrote it, in its folder or of its output; changes nothing, and nobody writes the
    folder meanwhile."""
    with looked_at(folder):
        return _verify(folder)


def repair(folder: Path) -> Repaired:
    """Make a damaged folder one that the same command can finish; nothing is touched where run.json is damaged."""
    with lock(folder):
        found = _verify(folder)
        left = [f for f in found if f.cure == "none"]
        mended = [] if _small_file(folder / "run.json", "none") else [f for f in found if f.cure != "none"]
        said = [f"{f.said.rstrip('.').partition(';')[0]}; {_CURES[f.cure]}." for f in mended]
        cures = {f.cure for f in mended}
        if cures:
            _begin_again(folder)
        if "train again" in cures:
            _forget_models(folder)
        if "read again" in cures:
            rmtree(folder / "inputs", ignore_errors=True)
        if "rebuild" in cures:
            said += _rebuild(folder)
        elif "redo rows" in cures:
            said += _redo(folder, mended)
        return Repaired(said, left)


def _models(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The models that a run trained, with those of their files that are not as they were written."""
    for path in sorted((folder / CHECKPOINTS).glob(f"*/{MODEL}")):
        if (path / COMPLETE).exists():
            try:
                yield path, spoilt(path)
            except StorageError:
                yield path, [COMPLETE]


def _forget_models(folder: Path) -> None:
    for path in (folder / CHECKPOINTS).glob(f"*/{BEGUN}"):
        if _small_file(path, "train again"):
            rmtree(path.parent, ignore_errors=True)
    for path, names in _models(folder):
        if names:
            rmtree(path, ignore_errors=True)


def retry_failed(folder: Path, journal: Journal, kinds: Collection[str]) -> int:
    """Take back the failures of these kinds, and with them what trying them again may change; how many there are.

    What is given to those stages as before keeps its outcome. Raises `RunError` where a model was trained on what came
    of them: it and all that it was asked would be of other records.
    """
    stages = journal.stages()
    counts = [sum(e.failure in kinds for e in journal.failed(stage)) for stage in stages]
    first = next((place for place, count in enumerate(counts) if count), None)
    if first is not None:
        if trained := trainings(folder):
            raise RunError(f"{folder}: {trained[0]} was trained on what there was without the failures; choose another "
                           f"output, and --reuse {folder} for what was asked before.")  # fmt: skip
        _begin_again(folder)
        journal.take_back(
            _open_from(journal, first), lambda stage: (e for e in journal.entries(stage) if e.failure not in kinds)
        )
    return sum(counts)


def _open_from(journal: Journal, first: int) -> list[str]:
    """The stages that other outcomes of one may change: it, those after it, and those before it to which a page in
    rounds may have come back; one that has the rows of a single data set was given all of them before."""
    stages = journal.stages()
    return [*(stage for stage in stages[:first] if not journal.has_one_dataset(stage)), *stages[first:]]


def reopen(folder: Path, journal: Journal) -> None:
    """Begin a run that is complete again; whatever it asked for as before keeps its outcome."""
    _begin_again(folder)
    journal.take_back(journal.stages(), journal.entries)


def _begin_again(folder: Path) -> None:
    """The run is no longer complete; said before anything is taken back, so that no end of the process hides it."""
    with storage_errors(folder):
        (folder / "result.json").unlink(missing_ok=True)
        sync(folder)


def _verify(folder: Path) -> list[Finding]:
    own = _small_file(folder / "run.json", "none")
    found = [*own, *_journal(folder, "" if own else said_identity(folder))]
    inputs = folder / "inputs"
    if (inputs / "source.json").exists():
        found += _small_file(inputs / "source.json", "read again")
    for path in sorted((folder / CHECKPOINTS).glob(f"*/{BEGUN}")):
        found += _small_file(path, "train again")
    for path, names in _models(folder):
        found += [Finding(f"{path / name}: is not as it was written.", "train again") for name in names]
    result = folder / "result.json"
    if result.exists():
        if damaged := _small_file(result, "write again"):
            return [*found, *damaged]
        for name, sha256 in read_json(result)["files"].items():
            if name.endswith(COMPLETE):  # looked at above, with what it lists, where it is there
                found += [] if (folder / name).exists() else [Finding(f"{folder / name}: is missing.", "train again")]
            else:
                cure: Cure = "read again" if name.startswith(_READ) else "write again"
                found += _file(folder / name, sha256, cure)
        found += _output(folder, read_json(result).get("output"))
        found += [finding for said in read_json(result).get("also", ()) for finding in _output(folder, said)]
    return found


def _output(folder: Path, said: Mapping[str, str] | None) -> list[Finding]:
    """What is wrong with the output of a run that is complete: where it was written, or else beside its folder."""
    if said is None:
        return []
    path = path_of_text(said["path"])
    beside = folder.absolute().parent / path.name
    if models := [place for place in (path, beside) if place.is_dir()]:
        again = f"remove {models[0]}, and the same command writes it again"
        return [Finding(f"{models[0] / name}: is not as the run wrote it; {again}.", "none")
                for name in _changed(models[0], said["sha256"])]  # fmt: skip
    there = [place for place in (path, beside) if place.is_file()]
    if not there:
        return [Finding(f"{path}: is missing; the same command writes it again.", "write again")]
    if all(digest(place) != said["sha256"] for place in there):
        return [Finding(f"{there[0]}: is not as the run wrote it; remove it, and the same command writes it again.",
                        "none")]  # fmt: skip
    return []


def _changed(model: Path, sha256: str) -> list[str]:
    """Files of a model's folder that are not as the run wrote them, which said the SHA-256 of the list of them."""
    listed = model / COMPLETE
    return spoilt(model) if listed.is_file() and digest(listed) == sha256 else [COMPLETE]


def _small_file(path: Path, cure: Cure) -> list[Finding]:
    try:
        read_json(path)
    except StorageError as error:
        return [Finding(str(error), cure)]
    return []


def _file(path: Path, sha256: str, cure: Cure) -> list[Finding]:
    if not path.exists():
        return [Finding(f"{path}: is missing.", cure)]
    if digest(path) != sha256:
        return [Finding(f"{path}: is not as it was written.", cure)]
    return []


def _journal(folder: Path, whose: str) -> list[Finding]:
    path = folder / "state.db"
    try:
        if not path.exists():
            raise StorageError(f"{path}: is missing.")
        with closing(Journal(folder, "look")) as journal:
            damage = [said for (said,) in journal.db.execute("PRAGMA integrity_check") if said != "ok"]
            if damage:
                raise StorageError(f"{path}: is damaged ({damage[0]}).")
            if whose not in ("", journal.run):
                raise StorageError(LOST.format(path, folder))
            found = [f for stage in journal.stages() for f in _stage(folder, journal, stage)]
            return [*found, *_strange(folder, journal)]
    except (StorageError, sqlite3.Error) as error:
        return [Finding(f"{str(error).rstrip('.')}.", "rebuild")]


def _strange(folder: Path, journal: Journal) -> Iterator[Finding]:
    """Parts that hold what the journal should know of, and does not."""
    known = {stage: journal.sealed(stage) for stage in journal.stages()}
    for place in sorted((folder / "stages").glob("*")):
        for path in strangers(place, known.get(place.name, [])):
            if is_lost(journal.db, place.name, path):
                yield Finding(STRANGE.format(path, folder), "rebuild")


def _stage(folder: Path, journal: Journal, stage: str) -> Iterator[Finding]:
    place = folder / "stages" / stage
    parts = journal.sealed(stage)
    for part in parts:
        try:
            rows = load(place, part)
        except StorageError as error:
            yield Finding(str(error), "redo rows", stage, part.number)
            continue
        if (len(rows), sum(e.failure is not None for e in rows)) != (part.rows, part.failed):
            yield Finding(
                f"{place}: part {part.number} does not hold the rows recorded.", "redo rows", stage, part.number
            )
    for row in sound_rows(journal.db, stage)[1]:
        yield Finding(SPOILT.format(folder / "state.db", row, stage, folder), "redo rows", stage)
    success = place / "_SUCCESS.json"
    if success.exists():
        yield from _small_file(success, "write again") or _same(success, parts)


def _same(success: Path, parts: Sequence[Sealed]) -> list[Finding]:
    if read_json(success)["parts"] != [asdict(part) for part in parts]:
        return [Finding(f"{success}: names other parts than the journal.", "write again")]
    return []


def _redo(folder: Path, found: Sequence[Finding]) -> list[str]:
    lost: dict[str, list[int]] = defaultdict(list)
    for finding in found:
        if finding.cure == "redo rows":
            lost[finding.stage] += [] if finding.part is None else [finding.part]
    with closing(Journal(folder)) as journal:
        stages = journal.stages()
        first = min(map(stages.index, lost))
        rows = {
            stage: sum(p.rows for p in journal.sealed(stage) if p.number in lost[stage])
            + len(sound_rows(journal.db, stage)[1])
            for stage in lost
        }
        journal.take_back(_open_from(journal, first), lambda stage: _kept(journal, stage, lost.get(stage, ())))
    return [f'stage "{stage}": {count:,} rows are lost and will be done again.' for stage, count in rows.items()]


def _kept(journal: Journal, stage: str, lost: Collection[int]) -> Iterator[Entry]:
    """The rows of a stage that are as they were written."""
    yield from journal.sealed_rows(stage, lost)
    yield from sound_rows(journal.db, stage)[0]


def _rebuild(folder: Path) -> list[str]:
    """A new journal from what the parts say of themselves; the old one is kept beside it under another name.

    What the old one still says of rows that are not sealed is put by, if it is this run's and can be read.
    """
    stages: dict[str, list[tuple[Label, Sealed]]] = defaultdict(list)
    refused: Counter[str] = Counter()
    for path in sorted((folder / "stages").glob("*/part-*.parquet")):
        refuse_link(path)
        if (part := find(path)) is not None and part[0].stage == path.parent.name:
            stages[path.parent.name].append(part)
        else:
            refused[path.parent.name] += 1
    still_open = _still_open(folder)
    _put_aside(folder)
    with closing(Journal(folder, "anew")) as journal:
        order = sorted(stages, key=lambda stage: stages[stage][0][0].ordinal)
        _record(journal, [stages[stage] for stage in order])
        whole = not refused and all(_is_whole(folder / "stages" / stage, stages[stage]) for stage in order)
        if not whole:
            later = order if refused else order[1:]
            journal.take_back(later, journal.entries)
            _put_by(journal, still_open)
    kept = [f'stage "{stage}": {sum(p.rows for _, p in stages[stage]):,} rows are kept.' for stage in order]
    kept += [f'stage "{stage}": {len(rows):,} open rows are kept.' for stage, rows in still_open.items()]
    lost = [
        f'stage "{stage}": {count} parts are damaged; their rows will be done again.'
        for stage, count in refused.items()
    ]
    last = "what else was not sealed yet is lost and will be done again."
    return [*kept, *lost, *([] if whole else [last if still_open else last.replace(" else", "")])]


def _put_by(journal: Journal, rows: Mapping[str, Sequence[Entry]]) -> None:
    with transaction(journal.db):
        for stage, entries in rows.items():
            stock_up(journal.db, stage, iter(entries))


def _still_open(folder: Path) -> dict[str, list[Entry]]:
    """The open rows that a journal which is to be built anew can still tell; none where it is another run's."""
    try:
        with closing(Journal(folder, "look")) as journal:
            if said_identity(folder) != journal.run:
                return {}
            found = {stage: sound_rows(journal.db, stage)[0] for stage in journal.stages()}
            return {stage: rows for stage, rows in found.items() if rows}
    except (StorageError, sqlite3.Error):
        return {}


def _record(journal: Journal, stages: Sequence[Sequence[tuple[Label, Sealed]]]) -> None:
    with transaction(journal.db):
        for parts in stages:
            label = parts[0][0]
            settings = canonical(label.settings).decode()
            journal.db.execute("INSERT INTO stage VALUES (?, ?, ?)", (label.ordinal, label.stage, settings))
            journal.db.execute("UPDATE meta SET value = ? WHERE key = 'part_rows'", (str(label.part_rows),))
            for _, part in parts:
                record(journal.db, label.stage, part)


def _is_whole(place: Path, parts: Sequence[tuple[Label, Sealed]]) -> bool:
    try:
        done: Mapping[str, Any] = read_json(place / "_SUCCESS.json")  # Any: JSON
    except StorageError:
        return False
    return bool(done["rows"] == sum(part.rows for _, part in parts))


def _put_aside(folder: Path) -> None:
    number = next(n for n in count(1) if not any(folder.glob(f"state.db.damaged-{n}*")))
    with storage_errors(folder):
        for name in ("state.db-wal", "state.db-shm", "state.db"):
            path = folder / name
            if path.exists():
                path.rename(folder / name.replace("state.db", f"state.db.damaged-{number}"))
