"""What does each token cost, without the logits of a whole vocabulary? Rows and vocabulary in parts, and one buffer.

Legend: R rows of hidden states, H hidden size, V vocabulary, C columns of it, G tokens whose losses are wanted.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tunesift.models.products import product

if TYPE_CHECKING:
    import torch

ROWS = 1024
"""Rows of hidden states that are projected together."""
COLUMNS = 1024
"""Tokens of the vocabulary that they are projected on together: with the rows, 4 MB of float32 logits at one time."""
COLUMNS_OF_GPU = 8192
"""The same on a GPU, where every product is a call that has to be worth it."""
CAST_BYTES = 16 * 2**20
"""Bytes of weights of 16 bits that exist as float32 at one time."""


class Head:
    """The projection on the vocabulary, and what a token costs after it, in float32 whatever the weights are."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        self._linear = linear
        self._kept = threading.local()

    def nats(self, rows: torch.Tensor, which: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood of each token under its row, [G], of rows [R, H]; `which` is in rising order.

        All indices are on the CPU, and so is what is returned.
        """
        import torch

        parts = []
        for start in range(0, len(rows), ROWS):
            first, last = (int(torch.searchsorted(which, n)) for n in (start, start + ROWS))
            own, wanted = (which[first:last] - start).to(rows.device), gold[first:last].to(rows.device)
            parts.append(self._part(rows[start : start + ROWS], own, wanted))
        return torch.cat(parts).cpu() if parts else torch.empty(0)

    def _part(self, rows: torch.Tensor, which: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
        """Losses under a few rows: the largest logit so far, and the sum of all exponentials relative to it."""
        import torch

        top = torch.full((len(rows),), -torch.inf, device=rows.device)  # [R]
        total, said = torch.zeros_like(top), torch.zeros(len(gold), device=rows.device)
        size, step = self._linear.out_features, self._columns()
        for start in range(0, size, step):
            logits = self._logits(rows, start, min(start + step, size))  # [R, C]
            place = gold - start
            inside = (place >= 0) & (place < logits.shape[1])
            said = torch.where(inside, logits[which, place.clamp(0, logits.shape[1] - 1)], said)
            most = torch.maximum(top, logits.amax(1))
            total = total * (top - most).exp() + logits.sub_(most[:, None]).exp_().sum(1)
            top = most
        return (top + total.log())[which] - said

    def _columns(self) -> int:
        weight = self._linear.weight
        most = COLUMNS if weight.device.type == "cpu" else COLUMNS_OF_GPU
        return most if weight.dtype.itemsize >= 4 else max(1, min(most, CAST_BYTES // (4 * weight.shape[1])))

    def _logits(self, rows: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """Logits of some columns, [R, C], to be written over."""
        weight, bias = self._linear.weight[first:last], self._linear.bias  # [C, H]
        logits = self._on_cpu(rows, weight) if rows.device.type == "cpu" else self._on_gpu(rows, weight)
        return logits if bias is None else logits.add_(bias[first:last])

    def _on_cpu(self, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        import torch

        rows, weight = rows.float(), weight.float()
        if (ours := product()) is not None:
            return ours(rows, weight, None)
        return torch.mm(rows, weight.T, out=self._space(rows, weight))

    def _on_gpu(self, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Multiplied as they are: a GPU is many times faster at numbers of 16 bits."""
        return self._space(rows, weight).copy_(rows @ weight.T)

    def _space(self, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        size = len(rows) * len(weight)
        return self._buffer(size, rows.device)[:size].view(len(rows), len(weight))

    def _buffer(self, size: int, device: torch.device) -> torch.Tensor:
        """This thread's own, kept from call to call: fresh memory costs more than the product into it."""
        import torch

        found: torch.Tensor | None = getattr(self._kept, "buffer", None)
        if found is None or len(found) < size:
            found = self._kept.buffer = torch.empty(size, device=device)
        return found
