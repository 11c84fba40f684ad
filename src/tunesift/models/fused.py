"""Which steps of a model are one call of torch's, though transformers takes several? GPT-2's activation.

Written out it reads and writes its numbers eight times, a tenth of what GPT-2 takes on a processor; torch's own call is
the same formula (Hendrycks and Gimpel, 2016, "Gaussian Error Linear Units", section 2, with tanh).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def fuse(model: torch.nn.Module) -> None:
    """Put torch's activation where transformers' own of the same formula stands."""
    import torch
    from transformers.activations import NewGELUActivation

    for module in list(model.modules()):
        for name, part in module.named_children():
            if type(part) is NewGELUActivation:
                setattr(module, name, torch.nn.GELU(approximate="tanh"))
