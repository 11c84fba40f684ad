"""Which runs are beaten by none? Fronts of response length and score, over the runs that a user has made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesift.errors import DataError, shown
from tunesift.json_text import JsonFault, parse_json

_KNOWN = ("run", "group", "length", "score")


@dataclass(frozen=True, slots=True)
class Point:
    """What one run came to."""

    run: str
    length: float
    """Mean length of its responses, in any unit that all runs share; shorter is better."""
    score: float
    """What a judge makes of them, the larger the better, such as wins against one model, in percent."""
    group: str = ""
    """What the run belongs to, such as the reward it was tuned with."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the front of one group stands among all runs."""

    group: str
    runs: int
    front: tuple[str, ...]
    """Its runs that no other of the group beats, the shortest first."""
    unbeaten: tuple[str, ...]
    """Those of them that no run of any group beats."""


def beats(one: Point, other: Point) -> bool:
    """Whether a run is neither longer nor worse than another, and shorter or better."""
    better = one.length < other.length or one.score > other.score
    return one.length <= other.length and one.score >= other.score and better


def front(points: Sequence[Point]) -> list[Point]:
    """The runs that none of these beats, the shortest first; of equal ones all."""
    ordered = sorted(points, key=lambda point: (point.length, -point.score))
    found: list[Point] = []
    for point in ordered:
        if not found or point.score > found[-1].score or not beats(found[-1], point):
            found.append(point)
    return found


def standings(points: Sequence[Point]) -> list[Standing]:
    """The front of every group, and what of it is on the front of all runs: fronts are compared, never single runs."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(point.group, []).append(point)
    unbeaten = {point.run for point in front(points)}
    found = []
    for group, own in sorted(groups.items()):
        runs = tuple(point.run for point in front(own))
        found.append(Standing(group, len(own), runs, tuple(run for run in runs if run in unbeaten)))
    return found


def read_points(path: Path) -> list[Point]:
    """The runs of a file of JSON Lines; raises `DataError` for a line that is none, and for two of one name."""
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path}: cannot be read; give a file of JSON Lines.") from None
    points = [_point(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if not points:
        raise DataError(f'{path}: holds no runs; write a line for each, such as {{"run": "a", "length": 200, '
                        '"score": 55}.')  # fmt: skip
    names = [point.run for point in points]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f'{path}: names the run "{shown(twice)}" twice; give each a name of its own.')
    return points


def _point(place: str, line: str) -> Point:
    try:
        row, end = parse_json(line)
    except JsonFault as error:
        raise DataError(f"{place}: {error.message}; write one JSON object on each line.") from None
    if not isinstance(row, Mapping) or line[end:].strip():
        raise DataError(f'{place}: is no JSON object; write a run, its "length" and its "score".')
    if odd := sorted(row.keys() - set(_KNOWN)):
        raise DataError(f'{place}: has the field "{shown(odd[0])}"; a run has {", ".join(_KNOWN)}.')
    run, group = row.get("run"), row.get("group", "")
    if not isinstance(run, str) or not run or not isinstance(group, str):
        raise DataError(f'{place}: has no "run", or a "group", that is a text; name the run.')
    return Point(run, _number(place, "length", row), _number(place, "score", row), group)


def _number(place: str, name: str, row: Mapping[str, Any]) -> float:  # Any: JSON
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f'{place}: "{name}" is {_told(value)}; write a number.')
    if name == "length" and value < 0:
        raise DataError(f"{place}: a length of {value:g} is below 0; write the mean length of the run's responses.")
    return float(value)


def _told(value: object) -> str:
    return "missing" if value is None else shown(str(value))
