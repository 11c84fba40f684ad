"""Which work of a model's last layer does nobody read? That of rows whose hidden states lead to no loss.

Other tokens see a row's keys and values, so these are computed for all; the query, what is made of the attention's
answer, and the layer's own network work on each row by itself, and are asked for the rows that are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_ROW_BY_ROW = ("mlp", "self_attn.q_proj", "self_attn.o_proj")
"""Parts of a layer that work on each row by itself, by the names that most architectures have for them."""
_WORTH = 0.75
"""Share of rows up to which it pays to pick them and to put them back."""


_READ: ContextVar[tuple[torch.Tensor, int] | None] = ContextVar("read", default=None)
"""The rows that are worked on just now, and of how many; None for all of them."""


class LastLayer:
    """The parts of a model's last layer that work on each row by itself."""

    def __init__(self, body: torch.nn.Module, layers: int) -> None:
        import torch

        stacks = [m for m in body.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == layers]
        parts = dict(stacks[0][-1].named_modules()) if stacks else {}
        for name in _ROW_BY_ROW:
            if name in parts:
                parts[name].register_forward_pre_hook(_pick)
                parts[name].register_forward_hook(_put_back)

    @contextmanager
    def at(self, rows: torch.Tensor, of: int) -> Iterator[None]:
        """While only some rows of so many are worked on in this thread; what the layer gives for the others means
        nothing."""
        token = _READ.set((rows, of) if len(rows) <= _WORTH * of else None)
        try:
            yield
        finally:
            _READ.reset(token)


def _pick(part: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    read = _READ.get()
    return given if read is None else (given[0][:, read[0]],)  # [1, R, H]


def _put_back(part: torch.nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> torch.Tensor:
    if (read := _READ.get()) is None:
        return made
    rows, of = read
    whole = made.new_zeros(1, of, made.shape[-1])  # [1, T, H]
    whole[:, rows] = made
    return whole
