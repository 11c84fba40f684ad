"""What is a reward model with a head for quality and one for length trained on? Pure functions of tensors.

Legend: B pairs, of which the 2B sequences stand as chosen ones first, then the rejected ones in the same order; K
heads, of which 0 is quality and 1 is length; H hidden size. The numbers of steps are those of ODIN (arXiv:2402.07319).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LEAST_SPREAD = 1e-6
"""Euclidean length of what is left of a vector without its mean, below which it is constant and has no correlation: for
a vector longer than 1 that part of its length, because the mean of equal numbers is rounded, too."""
LEAST_NORM = 1e-8
"""What a head's own length counts as at least."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each part of the loss counts."""

    length: float = 1.0
    """Of the length loss."""
    orthogonal: float = 1.0
    """Of the orthogonality loss."""
    total: float = 0.0
    """Of the correlation of both heads' sum with length."""
    least: int = 8
    """Sequences below which no correlation is taken."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one loss; a correlation is None where it was not taken."""

    loss: torch.Tensor
    ranking: float
    orthogonal: float
    length: float
    quality_and_length: float | None
    """Correlation of the quality head with length."""
    length_and_length: float | None
    """Correlation of the length head with length."""
    skipped: int
    """Correlations that were not taken: too few sequences, or one side is constant."""


def normalised(rows: torch.Tensor) -> torch.Tensor:
    """Step 1: each head without its mean and of length 1, so that none can vanish to be uncorrelated."""
    centred = rows - rows.mean(1, keepdim=True)
    heads: torch.Tensor = centred / centred.norm(dim=1, keepdim=True).clamp_min(LEAST_NORM)  # [K, H]
    return heads


def pearson(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor | None:
    """Pearson's correlation, at least in float32, since bfloat16 does not tell 1,000 from 1,001; None where a side is
    constant, of which torch.corrcoef makes NaN."""
    first, second = _centred(one), _centred(other)
    if first is None or second is None:
        return None
    found: torch.Tensor = (first @ second) / (first.norm() * second.norm())
    return found


def _centred(values: torch.Tensor) -> torch.Tensor | None:
    """The values without their mean; None where they are all the same."""
    import torch

    exact = values.to(torch.promote_types(values.dtype, torch.float32))
    centred = exact - exact.mean()
    known = max(1.0, float(exact.detach().norm()))
    return centred if float(centred.detach().norm()) >= LEAST_SPREAD * known else None


def ranking_loss(rewards: torch.Tensor) -> torch.Tensor:
    """Step 3: the negative log-likelihood of the chosen answers (Bradley and Terry), mean over the pairs."""
    import torch

    chosen, rejected = rewards.chunk(2)
    return -torch.nn.functional.logsigmoid(chosen - rejected).mean()


def orthogonality_loss(heads: torch.Tensor) -> torch.Tensor:
    """Step 5: mean size of the products of different heads; `heads` are normalised."""
    products = (heads @ heads.T).abs()  # [K, K]
    count = len(heads) * (len(heads) - 1)
    return (products.sum() - products.diagonal().sum()) / count


def gathered(values: torch.Tensor) -> torch.Tensor:
    """The same rows of all processes, one after the other; those of this one with their gradient.

    A plain gather has none. What is made of it belongs into `over_processes`. All have equally many rows.
    """
    import torch
    from torch import distributed

    if processes() == 1:
        return values
    found = [torch.empty_like(values) for _ in range(processes())]
    distributed.all_gather(found, values.detach().contiguous())
    found[distributed.get_rank()] = values
    return torch.cat(found)


def over_processes(value: torch.Tensor) -> torch.Tensor:
    """What was made of gathered rows, with its gradient times the number of processes: each has the share of its own
    rows, and the mean that they take of these divides their sum once more."""
    return value.detach() + processes() * (value - value.detach())


def processes() -> int:
    """How many train together; 1 without torch.distributed."""
    from torch import distributed

    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def odin_loss(rewards: torch.Tensor, lengths: torch.Tensor, heads: torch.Tensor, weights: Weights) -> Parts:
    """Step 6: `rewards` of both heads [2B, 2], lengths in tokens [2B], `heads` that are normalised [2, H].

    A correlation that is not taken adds nothing, and has no gradient.
    """
    import torch

    exact = rewards.to(torch.promote_types(rewards.dtype, torch.float32))
    ranking, orthogonal = ranking_loss(exact.sum(1)), orthogonality_loss(heads)
    every = gathered(torch.cat([exact, lengths.to(exact)[:, None]], 1))  # [2B of all, 3]
    quality, length, tokens = every.unbind(1)
    loss = ranking + weights.orthogonal * orthogonal
    found: list[torch.Tensor | None] = [None, None, None]
    if len(every) >= weights.least:
        found = [pearson(quality, tokens), pearson(length, tokens)]
        found.append(pearson(quality + length, tokens) if weights.total else None)
    apart = _length_loss(found[0], found[1], every)
    loss = loss + weights.length * over_processes(apart)
    if found[2] is not None:
        loss = loss + weights.total * over_processes(found[2].abs())
    taken = found[: 3 if weights.total else 2]
    return Parts(loss, float(ranking.detach()), float(orthogonal.detach()), float(apart.detach()),
                 _number(found[0]), _number(found[1]), sum(one is None for one in taken))  # fmt: skip


def _length_loss(quality: torch.Tensor | None, length: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """Step 4: the quality head is to know nothing of the length, and the length head all."""
    loss = like.new_zeros(())
    if quality is not None:
        loss = loss + quality.abs()
    return loss if length is None else loss + 1 - length


def _number(value: torch.Tensor | None) -> float | None:
    return None if value is None else float(value.detach())
