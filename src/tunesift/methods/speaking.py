"""How is a model asked something, with nothing of any call before, and once more where its reply cannot be read?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar

from tunesift.models import ChatModel, name_of
from tunesift.models.base import Completion, Sampling
from tunesift.records import Failure, Message
from tunesift.running.result import Planned
from tunesift.running.run import Run
from tunesift.running.step import Outcomes
from tunesift.settings import Settings

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Asked:
    """One call: a system message and a user message, and nothing of any call before."""

    id: str
    system: str
    user: str


@dataclass(frozen=True, kw_only=True)
class Speak(Settings):
    """Have a model say something."""

    speaker: ChatModel
    sampling: Sampling

    returns: ClassVar[type[Completion]] = Completion

    def __call__(self, chunk: Sequence[Asked], /) -> Sequence[Completion | Failure]:
        """What the model said, one completion per call."""
        asked = [(Message("system", item.system), Message("user", item.user)) for item in chunk]
        return self.speaker.chat(asked, self.sampling)


@dataclass(frozen=True)
class Hearing(Generic[Read]):
    """A stage in which a model is asked, and asked once more, with a reminder behind it, what could not be read."""

    stage: str
    """Its name; the further one is called `...-again`."""
    speak: Speak
    remind: str
    """What stands behind a question that is asked once more."""
    read: Callable[[str], Read | Failure]
    """From a reply's text to what it says."""

    def heard(self, run: Run, asked: Sequence[Asked]) -> dict[str, Read | Failure]:
        """What is read from the last reply to each call, by its id.

        A call that failed is not repeated: the model itself tried as often as it makes sense.
        """
        told = run.map(self.stage, self.speak, asked)
        good = told.good()
        found = {call.id: self._read(told, call.id) for call in asked}
        unread = [call for call in asked if call.id in good and isinstance(found[call.id], Failure)]
        if unread:
            again = [replace(call, user=call.user + self.remind) for call in unread]
            told = run.map(f"{self.stage}-again", self.speak, again)
            found |= {call.id: self._read(told, call.id) for call in unread}
        return found

    def planned(self, around: int, calls: int) -> list[Planned]:
        """So many calls, and as many once more at most; `around` bytes of a prompt are not the record's own."""
        around += len(self.remind.encode())
        first = planned_calls(self.stage, self.speak, around, calls, calls)
        return [*first, *planned_calls(f"{self.stage}-again", self.speak, around, 0, calls)]

    def _read(self, told: Outcomes[Completion], id: str) -> Read | Failure:
        said = told[id]
        return said if isinstance(said, Failure) else self.read(said.text)


def planned_calls(stage: str, speak: Speak, around: int, usual: int, most: int) -> list[Planned]:
    """So many calls where every reply can be used, and the further ones at most."""
    counts = ((usual, False), (most - usual, True))
    return [
        Planned(stage, count, 1, name_of(speak.speaker), around=around, answer=speak.sampling.max_tokens, spare=spare)
        for count, spare in counts
        if count > 0
    ]
