"""Which things can go wrong, and what does the user read when they do?

    TunesiftError
    ├─ RecipeError                     the recipe does not fit
    ├─ DataError                       a file or record cannot be read
    ├─ ModelError
    │  ├─ ModelUnavailable             not reachable, after retries
    │  ├─ ModelRefused                 our key or our request is wrong
    │  │  └─ ParameterRefused          the endpoint does not take a setting, or cannot do what is asked of it
    │  └─ BudgetSpent                  the limit on requests, tokens or money
    ├─ RunError
    │  ├─ RunLocked                    another process writes this folder
    │  ├─ ResumeError                  this folder holds another run
    │  ├─ TooManyFailures
    │  ├─ ManyQuarantined              the run is complete, and more rows than may be are set aside
    │  ├─ FewMade                      the run is complete, and made fewer records than were asked for
    │  ├─ CannotCreate                 an output or a folder cannot be made
    │  ├─ StorageError                 reading or writing the run folder failed
    │  │  └─ DiskFull                  no room left; what was in flight is kept
    │  └─ Stopped                      asked to stop; what was in flight is done
    ├─ TuningError                     a model could not be trained
    └─ MissingExtra                    an optional library is not installed

Every message is one sentence: where, what is wrong with the value in it, and what would be right.
"""

from __future__ import annotations

MOST_SAID = 400
"""Characters of one message."""
MOST_SHOWN = 80
"""Characters of data that one message quotes."""
MOST_QUOTED = 160
"""Characters of another library's message that one message quotes."""
ROOM_SAID = "make room on the disk"
"""What a full disk asks for; a run that knows how much says it here."""


class TunesiftError(Exception):
    """Base of every error a user can meet; `exit_code` is what the command line returns.

    Made of one sentence, or of one for each thing that is wrong.
    """

    exit_code: int = 70

    def __str__(self) -> str:
        return "\n".join(told(str(sentence)) for sentence in self.args)


class RecipeError(TunesiftError, ValueError):
    """A setting is unknown, of the wrong type or out of range; also a `ValueError`, so that a check in a
    settings class reads the same from Python and from a recipe."""

    exit_code = 64


class DataError(TunesiftError):
    """A file or a record cannot be read, or two records have one id."""

    exit_code = 65


class ModelError(TunesiftError):
    """A model could not do what it was asked."""

    exit_code = 69


class ModelUnavailable(ModelError):
    """The model is not there: no such folder, no such id, no answer."""


class ModelRefused(ModelError):
    """The model is there and says no: a wrong key, a missing chat template, weights in an unsafe format."""

    exit_code = 77


class ParameterRefused(ModelRefused):
    """The endpoint does not take a parameter that the settings ask for, or lacks the ability."""

    exit_code = 64


class BudgetSpent(ModelError):
    """The limit on requests, tokens or money is reached; raise it and start again to go on."""

    exit_code = 4


class RunError(TunesiftError):
    """A run cannot go on."""


class RunLocked(RunError):
    """Another process writes this folder."""

    exit_code = 75


class ResumeError(RunError):
    """The folder holds a run with other settings, other input or another page."""

    exit_code = 64


class TooManyFailures(RunError):
    """More items of one stage failed than the recipe allows."""

    exit_code = 5


class ManyQuarantined(RunError):
    """The run is complete and its output written, and more rows were set aside than `max_bad` allows."""

    exit_code = 3


class FewMade(RunError):
    """The run is complete and its output written, and it made fewer records than were asked for."""

    exit_code = 3


class CannotCreate(RunError):
    """An output exists already, or a folder cannot be written."""

    exit_code = 73


class StorageError(RunError):
    """Reading or writing the run folder failed: disk full, damaged file."""

    exit_code = 74


class DiskFull(StorageError):
    """There is no room left; what was in flight is written down, and the run can go on when there is."""


class Stopped(RunError):
    """Somebody asked the run to stop; what was in flight is done, and the same command goes on."""

    exit_code = 130  # 143 for SIGTERM


class TuningError(TunesiftError):
    """A model could not be trained: no memory, settings that do not fit it, a loss that is no number."""


class MissingExtra(TunesiftError):
    """An optional library is needed and not installed."""

    exit_code = 69


def printable(text: str) -> str:
    """Text with control, direction and unpaired surrogate characters escaped, so that it cannot drive a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(text: str) -> str:
    """Data as a message may quote it: escaped, and at most 80 characters of it."""
    said = printable(text[: MOST_SHOWN + 1])
    return said if len(said) <= MOST_SHOWN else f"{said[: MOST_SHOWN - 3]}..."


def first_line(error: BaseException) -> str:
    """What an error of a library says, as a sentence of ours may quote it; some say nothing, some whole pages."""
    return str(error).partition("\n")[0][:MOST_QUOTED]


def told_bytes(count: float) -> str:
    """A size in words, such as 1.3 GB, 62 MB or 5 kB."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def told_count(count: int, noun: str) -> str:
    """A number with its noun: 1 item, 1,200 items."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def told(text: str) -> str:
    """A message as anybody gets it: on one line, escaped, of at most 400 characters."""
    said = printable(text)
    return said if len(said) <= MOST_SAID else f"{said[:240]} ... {said[-150:]}"
