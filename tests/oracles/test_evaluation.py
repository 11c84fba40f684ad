"""What comparisons come to, held against figures of the papers' own arithmetic."""

from __future__ import annotations

import pytest

from tunesift import DataError
from tunesift.evaluation.pairwise import Outcomes


def test_evaluation_oracle_3_scores_of_95_wins_60_ties_and_63_losses() -> None:
    found = Outcomes(won=95, tied=60, lost=63)
    assert found.count == 218
    assert found.winning_score == pytest.approx(1.146789, abs=5e-7)
    assert found.adjusted_win_rate == pytest.approx(0.573394, abs=5e-7)
    assert found.winning_score == pytest.approx(2 * found.adjusted_win_rate)


def test_debatune_quality_57_wins_23_ties_28_losses_are_1_26852() -> None:
    assert Outcomes(57, 23, 28).winning_score == pytest.approx(1.26852, abs=5e-6)


def test_no_comparison_has_no_score() -> None:
    with pytest.raises(DataError, match="no comparison that could be judged"):
        _ = Outcomes(0, 0, 0).winning_score
