"""With which settings are local weights read? Where they are, their type, their device, and how much at a time."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tunesift.errors import RecipeError
from tunesift.models.folders import context_of, folder_identity, is_described
from tunesift.settings import INCIDENTAL, Settings

MOST_TOKENS = 2048
"""Tokens of one text that are read where a model reads more and no setting says how many."""


@dataclass(frozen=True, kw_only=True)
class LocalModel(Settings):
    """Weights on this machine, from a folder or by their id."""

    kind: str
    name: str
    """A folder, or a hub id whose files are on this machine."""
    revision: str | None = None
    """Commit of a hub id; None for its main branch."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights."""
    max_length: int | None = None
    """Most tokens of one text, 1 or more; None for 2,048 or the model's own limit, whichever is smaller."""
    device: Annotated[str, INCIDENTAL] = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""
    batch_tokens: Annotated[int, INCIDENTAL] = 4096
    """Tokens of one batch, padding included, 1 or more; halved when the device runs out of memory."""

    concurrency: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_count("max_length", self.max_length, "2048, or null")
        check_count("batch_tokens", self.batch_tokens, "4096")

    def identity(self) -> str:
        """Digest of the folder's content; the revision of a hub id."""
        return folder_identity(self.name, self.revision)

    @property
    def location(self) -> str:
        """Where the weights are: what the name says."""
        return self.name

    def most_tokens(self) -> int | None:
        """Most tokens of one text, by the model's files, and by the settings where these name no length; None where
        they are not here."""
        context = context_of(self.location, self.revision)
        if context is None and not is_described(self.location, self.revision):
            return None
        return self.limit_within(sys.maxsize if context is None else context)

    def limit_within(self, context: int) -> int:
        """Most tokens of one text, of a model that reads at most so many."""
        return min(self.max_length or MOST_TOKENS, context)


def check_count(name: str, count: int | None, usual: str) -> None:
    """Raise `RecipeError` for a setting that counts and is below 1; None counts nothing."""
    if count is not None and count < 1:
        raise RecipeError(f"{name}: {count} is not 1 or more; write {usual}.")
