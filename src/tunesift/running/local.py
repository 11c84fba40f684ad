"""How do steps run on this machine? One chunk after another, or many at once for models that wait on a network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Annotated, Generic, Literal, TypeVar

from tunesift.errors import RecipeError, RunError, TunesiftError, shown
from tunesift.records import Failure
from tunesift.running.step import Made, Step, Work
from tunesift.settings import INCIDENTAL, Settings, settings_within

Item = TypeVar("Item")
Given = TypeVar("Given")
Done = list[tuple[int, Sequence[Made | Failure]]]


@dataclass(frozen=True, kw_only=True)
class Local(Settings):
    """Threads on this machine; steps on local weights run one chunk at a time, since the device is shared."""

    kind: Literal["local"] = "local"
    chunk: Annotated[int, INCIDENTAL] = 64
    """Items of one chunk of a step on local weights: what a crash can cost."""

    stall_s: Annotated[float, INCIDENTAL] = 600.0
    """Seconds without any movement after which the command line ends the run, to be started again."""

    def __post_init__(self) -> None:
        if not self.stall_s > 0:
            raise RecipeError(f"execution.stall_s: {self.stall_s:g} is no time to wait; write seconds, such as 600.")
        if self.chunk < 1:
            raise RecipeError(f"execution.chunk: {self.chunk} is no number of items; write 1 or more.")

    def chunk_size(self, step: object) -> int:
        """Items of one chunk: what a model asks for, 1 for those that wait on a network, else `chunk`."""
        return together(step) or (1 if concurrency(step) > 1 else self.chunk)

    def map(self, step: Step[Item, Made], work: Work[Item]) -> Iterator[Done[Made]]:
        """Yield chunk numbers and outcomes, all that are finished at a time, in whatever order chunks finish.

        A slot is free again when the next ones are asked for, so no more than `concurrency` chunks are ever between
        being begun and being written down. Where one raises, or the user interrupts, the others in flight are yielded
        before the error is raised.
        """
        slots = concurrency(step)
        if slots > 1:
            with ThreadPoolExecutor(slots) as pool:
                yield from _in_threads(pool, slots, step, work)
            return
        while chunks := work.take(1):
            yield [(number, _whole(step, items)) for number, items in chunks]


class _Ended(Generic[Given]):
    """Futures in the order in which they ended. `wait` of the standard library locks every running one, each time."""

    def __init__(self) -> None:
        self._ended: deque[Future[Given]] = deque()
        self._woken: SimpleQueue[None] = SimpleQueue()

    def add(self, future: Future[Given]) -> None:
        """One has ended; called by the thread that did it."""
        self._ended.append(future)
        self._woken.put(None)

    def of(self, running: Mapping[Future[Given], object]) -> list[Future[Given]]:
        """Those of the running that have ended, once there is one; again and again, until they run no longer."""
        while not self._woken.empty():
            self._woken.get()
        while self._ended and self._ended[0] not in running:
            self._ended.popleft()
        while running and not self._ended:
            self._woken.get()
        return list(self._ended)


def _in_threads(pool: ThreadPoolExecutor, slots: int, step: Step[Item, Made], work: Work[Item]) -> Iterator[Done[Made]]:
    running: dict[Future[Sequence[Made | Failure]], int] = {}
    ended: _Ended[Sequence[Made | Failure]] = _Ended()
    trouble: list[BaseException] = []
    while running or not trouble:
        try:
            for number, items in work.take(0 if trouble else slots - len(running)):
                future = pool.submit(_whole, step, items)
                running[future] = number
                future.add_done_callback(ended.add)
            done = ended.of(running)
        except (TunesiftError, KeyboardInterrupt) as error:
            if trouble:
                raise
            trouble.append(error)
            continue
        if not done:
            return
        finished = [(running.pop(future), future) for future in done]
        trouble += [raised for _, future in finished if (raised := future.exception()) is not None]
        yield [(number, future.result()) for number, future in finished if future.exception() is None]
    raise trouble[0]


def concurrency(step: object) -> int:
    """Calls at once that a step allows: the fewest among the models in its fields; 1 where none says."""
    said = [getattr(s, "concurrency", None) for s in settings_within(step)]
    return min((n for n in said if isinstance(n, int)), default=1)


def together(step: object) -> int | None:
    """Items that a step wants at a time, since they go to a provider as one file; None where they do not."""
    return min((s.chunk for s in settings_within(step) if isinstance(getattr(s, "chunk", None), int)), default=None)


def _whole(step: Step[Item, Made], items: Sequence[Item]) -> Sequence[Made | Failure]:
    try:
        outcomes = step(items)
    except BaseException as error:
        ids = [str(getattr(item, "id", "")) for item in items]
        error.add_note(f"{type(step).__name__} was at work on {len(ids)} items: {shown(', '.join(ids))}")
        raise
    if len(outcomes) != len(items):
        raise RunError(
            f"{type(step).__name__} gave {len(outcomes)} outcomes for {len(items)} items; it must give one each."
        )
    return outcomes
