"""`kill -9` at random moments, again and again: the result is that of a run which nobody disturbed, byte for byte.

`TUNESIFT_KILLS=200` kills so often in each of the slow tests; `TUNESIFT_KILL_SEED` draws other moments.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.endpoint import serving
from harness.http_runs import answering, check_books, http_command, make_asked
from harness.kill import LOG, Lives, live, survive
from harness.runs import ask_command, make_records, page_command, select_command

KILLS = int(os.environ.get("TUNESIFT_KILLS", "60"))


def check(lives: Lives, most_again: int) -> None:
    """What a kill may cost, and that the kills were worth their name."""
    told = f"{lives.told()}, repeats {lives.repeats}"
    print(told)
    assert max(lives.repeats) <= most_again, told
    assert lives.idle <= max(5, lives.kills / 3), f"too many lives did nothing: {told}"


def survive_page(place: Path, kills: int, slots: int, chunk: int) -> None:
    lives = survive(place, page_command(slots, chunk), lambda home: make_records(home, 300), kills)
    parts = sorted((place / "undisturbed" / "run").glob("stages/*/part-*.parquet"))
    assert len(parts) == 19 + 4, "300 and 60 rows were to be sealed by sixteen"
    check(lives, slots * chunk)


def survive_select(place: Path, kills: int) -> None:
    check(survive(place, select_command(8), lambda home: make_records(home, 600), kills), 8)


def survive_endpoint(place: Path, kills: int) -> None:
    with serving(place / LOG) as port:
        check(survive(place, ask_command(port), lambda home: make_records(home, 300), kills), 8)


def survive_http(place: Path, kills: int) -> None:
    with answering(place) as server:
        check(survive(place, http_command, lambda home: make_asked(home, 60, server.url), kills), 8)
        check_books(place, server)


def test_three_kills_of_a_recipe_whose_model_is_behind_an_endpoint_pay_for_at_most_eight_calls_again(
    tmp_path: Path,
) -> None:
    """The real client, its ledger and its recipe, from the command line."""
    survive_http(tmp_path, 3)


@pytest.mark.slow
def test_many_kills_of_a_recipe_whose_model_is_behind_an_endpoint_pay_for_at_most_eight_calls_again(
    tmp_path: Path,
) -> None:
    survive_http(tmp_path, KILLS)


def test_five_kills_lose_duplicate_and_change_nothing(tmp_path: Path) -> None:
    survive_page(tmp_path, 5, slots=4, chunk=1)


def test_five_kills_of_the_command_line_lose_duplicate_and_change_nothing(tmp_path: Path) -> None:
    survive_select(tmp_path, 5)


def test_five_kills_while_an_endpoint_answers_pay_for_at_most_eight_calls_again(tmp_path: Path) -> None:
    survive_endpoint(tmp_path, 5)


@pytest.mark.slow
@pytest.mark.parametrize(("slots", "chunk"), [(4, 1), (1, 8)])
def test_twenty_kills_lose_duplicate_and_change_nothing(tmp_path: Path, slots: int, chunk: int) -> None:
    """Ten on threads, ten on chunks."""
    survive_page(tmp_path, 10, slots, chunk)


@pytest.mark.slow
def test_many_kills_of_the_command_line_lose_duplicate_and_change_nothing(tmp_path: Path) -> None:
    survive_select(tmp_path, KILLS)


@pytest.mark.slow
def test_many_kills_while_an_endpoint_answers_pay_for_at_most_eight_calls_again(tmp_path: Path) -> None:
    survive_endpoint(tmp_path, KILLS)


@pytest.mark.slow
def test_a_run_of_more_than_one_full_part_survives_kills_and_is_done_once(tmp_path: Path) -> None:
    """Parts of the size that users get."""
    command = select_command(64, part_rows=8192)
    check(survive(tmp_path, command, lambda home: make_records(home, 9000), 4), 64)
    home = tmp_path / "undisturbed"
    before = (home / "output.jsonl").stat().st_mtime_ns
    live(command(home, "undisturbed.1"))
    assert (home / "output.jsonl").stat().st_mtime_ns == before, "a finished run was done again"
