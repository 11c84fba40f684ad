"""How are rows to be drawn? What a page says of its chart, and which of its rows are stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Literal

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from tunesift.errors import DataError, RunError, shown

MOST_POINTS = 2_000
"""Rows that are stored of a chart of points."""
MOST_PLACES = 200
"""Places on the x axis that are stored of a chart of lines, and its last one besides."""
_WORD = 2**32
_GOLDEN = 2654435769
"""2**32 over the golden ratio: its multiples fall evenly into 0 to 2**32, wherever one stops."""
_KEY = b"tunesift.chart"

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Band:
    """What stands behind lines or points: all between `slope` times x plus `low`, and the same plus `high`."""

    name: str
    """What the legend calls it."""
    low: float
    """In the unit of y."""
    high: float | None = None
    """None for the lower line alone."""
    slope: float = 0.0
    """How much y rises with 1 of x; 0 is level, 1 the diagonal, which makes both axes have the same numbers."""


@dataclass(frozen=True, slots=True)
class Chart:
    """How a page wants its rows drawn. Every row is a point; of `lines`, those of one name are joined."""

    kind: Literal["lines", "points"]
    x: str
    """Column of the numbers to the right."""
    y: str
    """Column of the numbers upwards."""
    of: str
    """Column of names: of lines, or of kinds of points. Each has its colour, and its dashes or its sign."""
    x_name: str = ""
    """What stands at the x axis, with the unit; empty for the column's name."""
    y_name: str = ""
    """The same for the y axis."""
    caption: str = ""
    """What is seen, and how to read it, in sentences."""
    noun: str = ""
    """What places on the x axis, or points, are: `rounds`, `candidates`; empty for x with an s, or `points`."""
    bands: tuple[Band, ...] = ()
    """What stands behind."""
    names: tuple[str, ...] = ()
    """Names in the order of the legend, so that each keeps its colour from run to run; others follow as they come."""


@dataclass(frozen=True, slots=True)
class Described:
    """A chart as it is stored beside its rows."""

    chart: Chart
    shown: str
    """Which part of all rows is there: `every 8th of 1,000 rounds`; empty where all are."""
    left_out: int
    """Rows without two numbers."""


@dataclass
class Drawing:
    """The rows of a chart, thinned evenly as they come, so that a run of any length holds and stores few of them."""

    chart: Chart
    _rows: list[tuple[int, Row]] = field(default_factory=list)
    _last: list[tuple[int, Row]] = field(default_factory=list)
    """Those of the last place of lines, which is stored whether its turn has come or not."""
    _places: dict[object, int] = field(default_factory=dict)
    _count: int = 0
    """Points, or places of lines, so far."""
    _left_out: int = 0
    _halved: int = 0
    """Times that every second one was put away."""

    def add(self, rows: Iterable[Row]) -> None:
        """Take further rows; raises `RunError` for one without the columns of the chart."""
        for row in rows:
            for name in (self.chart.x, self.chart.y, self.chart.of):
                if name not in row:
                    raise RunError(f'a row of a chart has no column "{shown(name)}"; this is a fault of the method.')
            if not (_is_number(row[self.chart.x]) and _is_number(row[self.chart.y])):
                self._left_out += 1
                continue
            self._take(row)

    @property
    def rows(self) -> list[Row]:
        """Those that are stored, in the order in which they came."""
        more = [] if not self._last or self._stays(self._last[0][0]) else self._last
        return [row for _, row in (*self._rows, *more)]

    def table(self) -> pa.Table:
        """The rows with their description."""
        names = dict.fromkeys(column for row in self.rows for column in row)
        columns = {column: [row.get(column) for row in self.rows] for column in names}
        described = Described(self.chart, self._told(), self._left_out)
        return pa.table(columns).replace_schema_metadata({_KEY: _described().dump_json(described)})

    def _take(self, row: Row) -> None:
        place = self._place(row)
        if self.chart.kind == "lines":
            if self._last and self._last[0][0] != place:
                self._last = []
            self._last.append((place, row))
        if self._stays(place):
            self._rows.append((place, row))
        while self._is_full():
            self._halved += 1
            self._rows = [(place, row) for place, row in self._rows if self._stays(place)]

    def _place(self, row: Row) -> int:
        """Which point it is, or, of lines, which place on the x axis, in the order in which they came."""
        if self.chart.kind == "points":
            self._count += 1
            return self._count - 1
        place = self._places.setdefault(row[self.chart.x], len(self._places))
        self._count = len(self._places)
        return place

    def _stays(self, place: int) -> bool:
        """Of places every so many; of points as many, but in no step in which a pattern of theirs could fall: where
        six come of every seed, each of the six is as frequent among those that stay."""
        if self.chart.kind == "lines":
            return place % (1 << self._halved) == 0
        return place * _GOLDEN % _WORD < _WORD >> self._halved

    def _is_full(self) -> bool:
        if self.chart.kind == "points":
            return len(self._rows) > MOST_POINTS
        return self._count > MOST_PLACES << self._halved

    def _told(self) -> str:
        if not self._halved:
            return ""
        if self.chart.kind == "points":
            return f"{len(self._rows):,} of {self._count:,} {self.chart.noun or 'points'}, spread evenly over all"
        return f"every {_ordinal(1 << self._halved)} of {self._count:,} {self.chart.noun or self.chart.x + 's'}"


def described(path: str, schema: pa.Schema) -> Described | None:
    """How the rows of a file are to be drawn; None for a table. Raises `DataError` for words that we do not know."""
    said = (schema.metadata or {}).get(_KEY)
    if said is None:
        return None
    try:
        return _described().validate_json(said)
    except ValidationError:
        raise DataError(
            f"{path}: says how it is drawn in words of another release; use the release that wrote it."
        ) from None


def _described() -> TypeAdapter[Described]:
    return TypeAdapter(Described)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(float(value))


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"
