"""ODIN's numbers (arXiv:2402.07319), as the specification of the method works them out; plain Python beside tensors."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason='needs the "local" extra')

from tunesift.tuning.reward_losses import (  # noqa: E402  needs torch, which may not be here
    Weights,
    normalised,
    odin_loss,
    orthogonality_loss,
    pearson,
    ranking_loss,
)

QUALITY = [1.0, 0.2, 0.5, -0.3, 0.4, 0.1]
LENGTH = [0.3, -0.1, 0.6, 0.2, -0.4, 0.9]
TOKENS = [120, 80, 200, 60, 40, 260]
HEADS = [[0.5, -0.2, 0.1, 0.4], [0.3, 0.1, -0.5, 0.2]]
SIX = Weights(least=6)


def exact(values: object) -> Any:  # Any: a tensor
    return torch.tensor(values, dtype=torch.float64)


def given() -> tuple[Any, Any, Any]:  # Any: tensors
    """Rewards, lengths and heads of the worked example."""
    return exact([QUALITY, LENGTH]).T.contiguous(), exact(TOKENS), normalised(exact(HEADS))


def correlation(one: list[float], other: list[float]) -> float:
    """Pearson's, as a page of statistics prints it."""
    n = len(one)
    mean, mean_of_other = sum(one) / n, sum(other) / n
    shared = sum((x - mean) * (y - mean_of_other) for x, y in zip(one, other, strict=True))
    spread = sum((x - mean) ** 2 for x in one) * sum((y - mean_of_other) ** 2 for y in other)
    return shared / math.sqrt(spread)


# --- oracle 1: the worked example ------------------------------------------------------------------------------------


def test_oracle_1_worked_example_of_the_ranking_loss() -> None:
    total = [q + more for q, more in zip(QUALITY, LENGTH, strict=True)]
    margins = [total[n] - total[n + 3] for n in range(3)]
    assert margins == pytest.approx([1.4, 0.1, 0.1], abs=1e-6)
    by_hand = sum(math.log(1 + math.exp(-m)) for m in margins) / 3
    assert by_hand == pytest.approx(0.503070, abs=1e-6)
    assert float(ranking_loss(exact(total))) == pytest.approx(by_hand, abs=1e-12)


def test_oracle_1_worked_example_of_the_length_loss() -> None:
    assert correlation(QUALITY, TOKENS) == pytest.approx(0.102749, abs=1e-6)
    assert correlation(LENGTH, TOKENS) == pytest.approx(0.929828, abs=1e-6)
    parts = odin_loss(*given(), SIX)
    assert parts.quality_and_length == pytest.approx(correlation(QUALITY, TOKENS), abs=1e-12)
    assert parts.length_and_length == pytest.approx(correlation(LENGTH, TOKENS), abs=1e-12)
    assert parts.length == pytest.approx(0.172922, abs=1e-6)
    assert parts.length - 1 == pytest.approx(-0.827078, abs=1e-6)  # in the form without the 1


def test_oracle_1_worked_example_of_the_heads() -> None:
    heads = normalised(exact(HEADS))
    assert heads[0].tolist() == pytest.approx([0.547723, -0.730297, -0.182574, 0.365148], abs=1e-6)
    assert float(orthogonality_loss(heads)) == pytest.approx(0.410612, abs=1e-6)
    plain = exact(HEADS) / exact(HEADS).norm(dim=1, keepdim=True)
    assert float(orthogonality_loss(plain)) == pytest.approx(0.377754, abs=1e-6)  # without centring


def test_oracle_1_worked_example_of_the_total() -> None:
    assert float(odin_loss(*given(), SIX).loss) == pytest.approx(1.086604, abs=1e-6)
    assert float(odin_loss(*given(), Weights(total=1.0, least=6)).loss) == pytest.approx(1.846634, abs=1e-6)


def test_oracle_1_gradient_of_a_correlation() -> None:
    quality = exact(QUALITY).requires_grad_()
    found = pearson(quality, exact(TOKENS))
    assert found is not None
    (slope,) = torch.autograd.grad(found, quality)
    assert slope.tolist() == pytest.approx([-0.109468, -0.235374, 0.369874, -0.287493, -0.469628, 0.732089], abs=1e-6)
    mean = sum(QUALITY) / 6
    assert sum(slope.tolist()) == pytest.approx(0, abs=1e-12)
    assert sum(s * (q - mean) for s, q in zip(slope.tolist(), QUALITY, strict=True)) == pytest.approx(0, abs=1e-12)


def test_heads_beyond_two_are_compared_two_by_two() -> None:
    heads = normalised(exact([*HEADS, [0.1, 0.9, 0.2, -0.3]]))
    pairs = [abs(float(heads[i] @ heads[j])) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert float(orthogonality_loss(heads)) == pytest.approx(sum(pairs) / 3, abs=1e-12)


# --- oracle 2: what changes nothing ----------------------------------------------------------------------------------


def test_oracle_2_scale_and_shift_of_a_head_and_of_the_lengths_change_nothing() -> None:
    hidden = exact([[(7 * i * j) % 11 / 5 - 1 for j in range(1, 5)] for i in range(1, 7)])

    def loss(rows: Any, tokens: Any) -> float:  # Any: tensors
        heads = normalised(rows)
        return float(odin_loss(hidden @ heads.T, tokens, heads, SIX).loss)

    plain = loss(exact(HEADS), exact(TOKENS))
    for factor in (0.1, 3.0, 1000.0):
        assert loss(exact(HEADS) * exact([[factor], [1.0]]), exact(TOKENS)) == pytest.approx(plain, abs=1e-12)
    assert loss(exact(HEADS) + exact([[0.7], [-2.0]]), exact(TOKENS)) == pytest.approx(plain, abs=1e-12)
    assert loss(exact(HEADS), 3 * exact(TOKENS) + 17) == pytest.approx(plain, abs=1e-12)
    assert loss(exact(HEADS), -exact(TOKENS)) != pytest.approx(plain, abs=1e-3)  # only a > 0


def test_oracle_2_swapping_chosen_and_rejected_flips_the_margins_alone() -> None:
    rewards, tokens, heads = given()
    swapped = [3, 4, 5, 0, 1, 2]
    one, other = odin_loss(rewards, tokens, heads, SIX), odin_loss(rewards[swapped], tokens[swapped], heads, SIX)
    assert (other.length, other.orthogonal) == pytest.approx((one.length, one.orthogonal), abs=1e-12)
    assert other.ranking == pytest.approx(sum(math.log(1 + math.exp(m)) for m in (1.4, 0.1, 0.1)) / 3, abs=1e-12)


def test_oracle_2_the_order_of_pairs_changes_nothing() -> None:
    rewards, tokens, heads = given()
    plain = float(odin_loss(rewards, tokens, heads, SIX).loss)
    for order in permutations(range(3)):
        both = [*order, *(n + 3 for n in order)]
        assert float(odin_loss(rewards[both], tokens[both], heads, SIX).loss) == pytest.approx(plain, abs=1e-12)


# --- oracle 3: degenerate input --------------------------------------------------------------------------------------


def test_oracle_3_of_two_sequences_a_correlation_has_no_gradient() -> None:
    quality = exact([0.3, -0.8]).requires_grad_()
    found = pearson(quality, exact([10, 20]))
    assert found is not None
    assert float(found.detach()) == pytest.approx(-1)
    (slope,) = torch.autograd.grad(found, quality)
    assert slope.tolist() == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize("which", ["lengths", "quality", "rewards"])
def test_oracle_3_what_is_constant_adds_nothing_and_is_counted(which: str) -> None:
    rewards, tokens, heads = given()
    if which == "lengths":
        tokens = torch.full_like(tokens, 100)
    else:
        rewards[:, 0 if which == "quality" else slice(None)] = 0.25
    rewards.requires_grad_()
    parts = odin_loss(rewards, tokens, heads, SIX)
    assert math.isfinite(float(parts.loss.detach()))
    skipped = {"lengths": 2, "quality": 1, "rewards": 2}[which]
    assert parts.skipped == skipped
    assert parts.quality_and_length is None
    expected = 0.0 if skipped == 2 else 1 - correlation(LENGTH, TOKENS)
    assert parts.length == pytest.approx(expected, abs=1e-9)
    (slope,) = torch.autograd.grad(parts.loss, rewards)
    assert torch.isfinite(slope).all()
    by_ranking = torch.autograd.grad(ranking_loss(rewards.sum(1)), rewards)[0]
    assert torch.allclose(slope[:, 0], by_ranking[:, 0])  # of the quality head nothing but the ranking is left


def test_oracle_3_nan_of_a_plain_correlation_does_not_get_in() -> None:
    constant = torch.full((6,), 3.0)
    assert bool(torch.corrcoef(torch.stack([constant, torch.arange(6.0)])).isnan().any())  # what is guarded against
    assert pearson(constant, torch.arange(6.0)) is None
    for value in (0.1, 12.345678, 1e4 / 3):  # of which the mean is not quite the same number
        assert pearson(torch.full((33,), value), torch.arange(33.0)) is None


def test_oracle_3_below_the_least_number_of_sequences_the_length_loss_is_left_out() -> None:
    few = odin_loss(*given(), Weights(least=7))
    assert (few.length, few.skipped, few.quality_and_length) == (0.0, 2, None)
    assert float(few.loss) == pytest.approx(few.ranking + few.orthogonal, abs=1e-12)
    assert odin_loss(*given(), SIX).skipped == 0


def test_oracle_3_an_empty_response_has_the_length_0() -> None:
    rewards, _, heads = given()
    tokens = [0, *TOKENS[1:]]
    found = odin_loss(rewards, exact(tokens), heads, SIX).quality_and_length
    assert found == pytest.approx(correlation(QUALITY, tokens), abs=1e-12)


def test_lengths_are_not_rounded_to_the_type_of_the_rewards() -> None:
    """bfloat16 makes 1,000 of 1,001."""
    tokens = torch.tensor([1000, 1001, 1002, 1003, 1005, 1007, 1004, 1001])
    rewards = torch.tensor([[n / 8, -n / 4] for n in range(8)], dtype=torch.bfloat16)
    found = odin_loss(rewards, tokens, normalised(exact(HEADS)).float(), Weights())
    expected = correlation(rewards[:, 0].tolist(), tokens.tolist())
    assert found.quality_and_length == pytest.approx(expected, abs=1e-5)
    rounded = correlation(rewards[:, 0].tolist(), tokens.to(torch.bfloat16).tolist())
    assert abs(rounded - expected) > 1e-3


def test_a_head_of_equal_numbers_gives_no_nan() -> None:
    rows = torch.ones(2, 4, requires_grad=True)
    normalised(rows).sum().backward()
    assert bool(torch.isfinite(rows.grad).all())


@pytest.mark.parametrize(("sequences", "noise"), [(8, 0.31), (16, 0.21), (32, 0.14), (64, 0.10)])
def test_of_few_sequences_a_correlation_is_noise(sequences: int, noise: float) -> None:
    """What `tuner.device_batch` says, and docs/odin.md."""
    stream = torch.Generator().manual_seed(0)
    found = [pearson(*torch.randn(2, sequences, generator=stream)) for _ in range(2000)]
    assert sum(abs(float(one)) for one in found if one is not None) / 2000 == pytest.approx(noise, abs=0.012)


# --- oracle 5: a model that is rewarded for length -------------------------------------------------------------------


def fitted(odin: bool) -> dict[str, float]:
    """Linear heads on 16 features of which 0 is quality and 1 is length, both truly preferred."""
    torch.manual_seed(0)
    features = torch.randn(2, 4512, 16)  # answers of pairs
    utility = 3 * features[..., 0] + 1.5 * features[..., 1]
    first = torch.rand(4512) < torch.sigmoid(utility[0] - utility[1])
    chosen = torch.where(first[:, None], features[0], features[1])
    rejected = torch.where(first[:, None], features[1], features[0])
    rows = torch.nn.Parameter(torch.randn(2 if odin else 1, 16) * 0.1)
    optimiser = torch.optim.Adam([rows], 0.02)
    for _ in range(600):
        batch = torch.randint(0, 512, (64,))
        both = torch.cat([chosen[batch], rejected[batch]])
        heads = normalised(rows) if odin else rows
        rewards = both @ heads.T
        loss = odin_loss(rewards, both[:, 1], heads, Weights()).loss if odin else ranking_loss(rewards[:, 0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    tested = torch.stack([chosen[512:], rejected[512:]])
    with torch.no_grad():
        rewards = tested @ (normalised(rows) if odin else rows).T
    lengths, quality = tested[..., 1], rewards[..., 0]
    longer, right = lengths[0] > lengths[1], quality[0] > quality[1]
    return {
        "correlation": correlation(quality.flatten().tolist(), lengths.flatten().tolist()),
        "length head": correlation(rewards[..., -1].flatten().tolist(), lengths.flatten().tolist()),
        "accuracy": float(right.float().mean()),
        "longer": float(right[longer].float().mean()),
        "shorter": float(right[~longer].float().mean()),
    }


@pytest.mark.slow
def test_oracle_5_the_quality_head_does_not_pay_for_length() -> None:
    vanilla, odin = fitted(odin=False), fitted(odin=True)
    assert vanilla["correlation"] > 0.3
    assert abs(odin["correlation"]) < 0.1
    assert odin["length head"] > 0.9
    assert odin["shorter"] > vanilla["shorter"]
    assert odin["longer"] < vanilla["longer"]
    assert odin["accuracy"] < vanilla["accuracy"]  # length is truly preferred here, and no longer used


# --- oracle 6: several processes -------------------------------------------------------------------------------------

_ONE_OF_TWO = """
import sys, torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from tunesift.tuning import reward_losses
from tunesift.tuning.reward_losses import Weights, normalised, odin_loss

rank, place, corrected = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "corrected"
distributed.init_process_group("gloo", init_method=f"file://{place}/meet-{sys.argv[3]}", rank=rank, world_size=2)
if not corrected:
    reward_losses.over_processes = lambda value: value

class Heads(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = torch.nn.Parameter(torch.load(f"{place}/rows", weights_only=True))
    def forward(self, hidden):
        heads = normalised(self.rows)
        return hidden @ heads.T, heads

model = DistributedDataParallel(Heads())
hidden, tokens = torch.load(f"{place}/data", weights_only=True)
pairs = len(tokens) // 4
mine = [*range(rank * pairs, (rank + 1) * pairs), *range((2 + rank) * pairs, (3 + rank) * pairs)]
rewards, heads = model(hidden[mine])
parts = odin_loss(rewards, tokens[mine], heads, Weights(orthogonal=0.5, total=0.3))
parts.loss.backward()
torch.save((model.module.rows.grad, parts.length), f"{place}/grad-{sys.argv[3]}-{rank}")
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_oracle_6_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    torch.manual_seed(1)
    rows, hidden, tokens = torch.randn(2, 5), torch.randn(16, 5), torch.randint(1, 300, (16,))
    torch.save(rows, tmp_path / "rows")
    torch.save((hidden, tokens), tmp_path / "data")
    alone = rows.clone().requires_grad_()
    heads = normalised(alone)
    parts = odin_loss(hidden @ heads.T, tokens, heads, Weights(orthogonal=0.5, total=0.3))
    parts.loss.backward()
    found = {how: _together(tmp_path, how) for how in ("corrected", "plain")}
    for gradient, length in found["corrected"]:
        assert torch.allclose(gradient, alone.grad, atol=1e-5)
        assert length == pytest.approx(parts.length, abs=1e-6)  # of all 16 sequences, not of a process's 8
    for gradient, _ in found["plain"]:  # without the correction the length losses count half
        half = rows.clone().requires_grad_()
        heads = normalised(half)
        odin_loss(hidden @ heads.T, tokens, heads, Weights(length=0.5, orthogonal=0.5, total=0.15)).loss.backward()
        assert torch.allclose(gradient, half.grad, atol=1e-5)
        assert not torch.allclose(gradient, alone.grad, atol=1e-3)


def _together(place: Path, how: str) -> list[tuple[Any, float]]:  # Any: a tensor
    command = [sys.executable, "-c", _ONE_OF_TWO]
    begun = [
        subprocess.Popen([*command, str(rank), str(place), how], stderr=subprocess.PIPE, text=True,
                         env={**os.environ, "OMP_NUM_THREADS": "1"})
        for rank in range(2)
    ]  # fmt: skip
    for child in begun:
        said = child.communicate(timeout=120)[1]
        assert child.returncode == 0, said
    return [torch.load(place / f"grad-{how}-{rank}", weights_only=True) for rank in range(2)]
