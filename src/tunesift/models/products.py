"""Which library multiplies? On AMD's processors with AVX-512, oneDNN, which comes with torch and which torch passes by.

There torch asks Intel's MKL, which gives such processors the code that it has for AVX2. oneDNN takes weights as they
are and makes twice as many float32 products a second (docs/speed.md). Everywhere else torch knows best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


ROWS = 128
"""Products of more rows than this have a multiple of it: oneDNN makes code for every number of rows that it meets, in
milliseconds and up to a megabyte, and keeps it."""


def multiplying(device: torch.device) -> AbstractContextManager[Any]:  # Any: torch's own class
    """While layers of this thread multiply by what is fastest there; nothing in it is differentiated."""
    ours = product() if device.type == "cpu" else None
    return nullcontext() if ours is None else _mode(ours)()


def room(rows: int, device: torch.device) -> int:
    """Rows that a product of so many is to have there: of fewer than `ROWS` the next power of two."""
    if device.type != "cpu" or product() is None:
        return rows
    return -(-rows // ROWS) * ROWS if rows > ROWS else 1 << (rows - 1).bit_length()


@cache
def product() -> Product | None:
    """On a CPU, rows [R, H] on weights [C, H] and a bias [C], in new memory, [R, C]; None where torch's own is as
    fast."""
    import torch

    told: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # not every torch can say
    known = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # nor has oneDNN
    if known is None or not told.get("avx512_f") or "AMD" not in str(told.get("cpu_name")):
        return None

    def by_onednn(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return known(rows, weight, bias, "none", [], "")  # type: ignore[no-any-return]

    return by_onednn


def fits(*tensors: torch.Tensor | None) -> bool:
    """Whether all are plain float32 numbers on a CPU."""
    import torch

    plain = (torch.Tensor, torch.nn.Parameter)
    there = [t for t in tensors if t is not None]
    return all(type(t) in plain and t.dtype == torch.float32 and t.device.type == "cpu" for t in there)


@cache
def _mode(ours: Product) -> type[Any]:  # Any: torch's own class
    """What stands between a model's layers and torch, and takes their products."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Products(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.nn.functional.linear and not kwargs and fits(*args):
                rows, weight, bias = (*args, None)[:3]
                return ours(rows, weight, bias)
            if func is torch.addmm and not kwargs and fits(*args) and args[0].ndim == 1:  # GPT-2's layers
                bias, rows, weight = args
                return ours(rows, weight.t(), bias)
            return func(*args, **(kwargs or {}))

    return Products
