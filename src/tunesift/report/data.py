"""What does a report show, whatever method made the run?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesift.running.charts import Chart


@dataclass(frozen=True, slots=True)
class Bar:
    """A named count."""

    label: str
    """What was counted: a stage of the funnel, or a reason."""
    count: int
    """Number of records."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How the scores spread, kept and dropped records apart."""

    score: str
    """Name of the score: "ifd"."""
    low: float
    """Left edge of the first bin; lower scores are counted in it."""
    high: float
    """Right edge of the last bin, where higher scores are counted; all bins have one width."""
    kept: tuple[int, ...]
    """Number of kept records in each bin, from low to high."""
    dropped: tuple[int, ...]
    """Number of dropped records in each bin; as long as `kept`."""
    threshold: float | None
    """Score at which a record changes sides; None when no single score decides."""
    unscored: int
    """Number of records without a score; they stand in no bin."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record and what became of it."""

    id: str
    """Id of the record, as in the decisions."""
    line: int | None
    """Line or position in the input file, from 1; None for a created record."""
    action: str
    """One of keep, drop, quarantine, replace, create."""
    reason: str
    """Why, in one sentence."""
    score: float | None
    """None when the record has no score; a number that is not finite is shown as none."""
    parts: Mapping[str, float]
    """Numbers the score was made of, by name."""
    messages: tuple[tuple[str, str], ...]
    """The conversation as it is now: pairs of role and text, in order; of a preference pair both answers."""
    before: tuple[tuple[str, str], ...] = ()
    """The conversation as it was, for a record that was replaced; empty for others."""


@dataclass(frozen=True, slots=True)
class Table:
    """A small table that the method made along the way."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]
    """As many cells as columns each."""


@dataclass(frozen=True, slots=True)
class Group:
    """Points of a chart that have one name: a line, or a kind of point."""

    name: str
    x: tuple[float, ...]
    """Numbers to the right; of a line, as they follow on one another."""
    y: tuple[float, ...]
    """Numbers upwards; as many."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart, with what is drawn."""

    name: str
    chart: Chart
    shown: str
    """Which part of all rows is drawn; empty where all are."""
    left_out: int
    """Rows without two numbers; they are not drawn."""
    groups: tuple[Group, ...]
    """In the order in which they first came."""


@dataclass(frozen=True, slots=True)
class Broken:
    """An input line that could not be read."""

    place: str
    """File and line: "alpaca.json:1204"."""
    code: str
    """Short name of the trouble, the same for all lines with it."""
    message: str
    """What is wrong, in one sentence."""
    raw: str
    """The line as it was found, or the beginning of it."""
    id: str = ""
    """Of its record, where the line says enough for one."""


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything on the page; nothing else is looked up when it is drawn."""

    title: str
    """Heading of the page."""
    method: str
    """Kind of the method."""
    run_id: str
    """Identifies the run folder."""
    created: str
    """When the run was begun, ready to be read."""
    command: str
    """Command line that repeats the run."""
    facts: tuple[tuple[str, str], ...]
    """Pairs of name and value for the head of the page: files, settings, seed, version."""
    funnel: tuple[Bar, ...]
    """From the records read to what became of them; the labels say which."""
    reasons: tuple[Bar, ...]
    """Why records were dropped, most frequent first; how they were created, where none were read."""
    histogram: Histogram | None
    """None when the method gives no single score."""
    rows: tuple[Row, ...]
    """The records on the page: all of them, or a sample."""
    total: int
    """Number of input records, those that are not among `rows` included."""
    broken: tuple[Broken, ...]
    """Input lines that could not be read."""
    tables: tuple[Table, ...] = ()
    """What the method counted along the way."""
    figures: tuple[Figure, ...] = ()
    """What the method wants drawn, and two models' numbers where the score is made of such."""
    doubts: tuple[str, ...] = ()
    """What speaks against trusting the outcome, one sentence each."""


@dataclass(frozen=True, slots=True)
class Side:
    """One run among those that are compared."""

    name: str
    """Name of its output, or of its folder."""
    facts: tuple[tuple[str, str], ...]
    """Pairs of name and value: method, settings, input."""
    kept: int
    """Records it keeps, of those that all runs decided on."""
    score: str | None
    """Name of its main score; None where it scored nothing."""
    length: float | None
    """Rank correlation of the score with the characters of the response; None without a score."""
    kept_length: float | None
    """Median characters of the responses it keeps; None where it keeps nothing."""
    shares: tuple[float, ...]
    """Fraction it keeps of each band of length, from the shortest responses to the longest."""
    medians: tuple[float | None, ...]
    """Median of its score in each of these bands; empty without a score."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """Two scores of the same records."""

    first: str
    second: str
    value: float | None
    """Rank correlation (Spearman); None where a score is the same for all."""
    over: int
    """Records that have both."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two selections from the same records."""

    first: str
    second: str
    both: int
    """Records that both keep."""
    jaccard: float | None
    """Kept by both over kept by either; None where nothing is kept."""
    budget: int
    """Records that the smaller selection keeps."""
    equal: float | None
    """The same at that budget: the larger selection cut to its best by its own score, or, where it has none, thinned
    evenly, which gives the expected value."""
    chance: float | None
    """What two draws of that budget would share."""


@dataclass(frozen=True, slots=True)
class Different:
    """A record that one run keeps and the other does not."""

    id: str
    kept: str
    """Why it was kept."""
    dropped: str
    """Why it was not."""
    messages: tuple[tuple[str, str], ...]
    """The conversation: pairs of role and text, in order; of a preference pair both answers."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What one run keeps and another does not."""

    keeps: str
    drops: str
    count: int
    """How many records there are; `rows` shows some of them, evenly spaced."""
    rows: tuple[Different, ...]


@dataclass(frozen=True, slots=True)
class CompareData:
    """Everything on the page that compares runs."""

    title: str
    records: int
    """Records that all runs decided on."""
    median_length: float
    """Median characters of their responses."""
    notes: tuple[str, ...]
    """What a reader must know before comparing."""
    sides: tuple[Side, ...]
    bands: tuple[str, ...]
    """Names of the bands of length: "120 to 340"."""
    correlations: tuple[Correlation, ...]
    overlaps: tuple[Overlap, ...]
    differences: tuple[Difference, ...]
