"""Who hears how far a run is? The command line, if it listens; nobody otherwise."""

from __future__ import annotations


class Progress:
    """Told of stages as they begin, advance and end; this one keeps it to itself."""

    chunk = 1
    """Items that the stage works on at a time."""
    unit = "item"
    """What the stage is counted in, of one: a training in updates."""

    def turn(self, done: int, of: int) -> None:
        """So many records have had their turn, of a method that works on some at a time; told from 0 on."""

    def begin(self, stage: str, total: int, done: int) -> None:
        """A stage begins: how many items it has, and how many of them the journal already holds."""

    def advance(self, stage: str, items: int, failed: int) -> None:
        """Items were done and written down, some of them failures."""

    def take_over(self, stage: str, items: int) -> None:
        """Items were not worked on, since what another course made of them was at hand."""

    def end(self, stage: str) -> None:
        """The stage is done."""
