"""Packs hold every text whole, what is shared once, and no more tokens than they may."""

from __future__ import annotations

import random

import pytest

from tunesift.models.packing import LEAST, Forest, Stretch, filled, grown, laid, packs

HEAD, OTHER = tuple(range(100, 140)), (*range(100, 120), *range(300, 310))


def texts_of(seed: int, count: int, longest: int = 60) -> list[tuple[int, ...]]:
    """Texts that begin in nested ways, some with another as their beginning."""
    draw = random.Random(seed)
    found: set[tuple[int, ...]] = set()
    while len(found) < count:
        begin = draw.choice([(), HEAD, OTHER, HEAD[:30], (*HEAD, *range(12)), *list(found)[:3]])
        found.add(begin + tuple(draw.randrange(9) for _ in range(draw.randrange(1, longest))))
    return sorted(found, key=lambda t: draw.random())


def seen(pack: object, row: int) -> list[int]:
    """Rows that a row sees, by the rule in the module's first lines."""
    return [
        other
        for stretch in pack.stretches  # type: ignore[attr-defined]
        for other in range(stretch.first, stretch.last)
        if other <= row < stretch.end
    ]


def size(forest: Forest, texts: list[int]) -> int:
    return len(laid(forest, texts).ids)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("tokens", [1, 64, 200, 2048])
def test_every_token_sees_its_own_text_up_to_itself_and_nothing_else(seed: int, tokens: int) -> None:
    texts = texts_of(seed, 40)
    forest = grown(texts)
    placed = []
    for group in packs(forest, tokens):
        pack = laid(forest, group)
        placed += group
        assert set(pack.rows) == set(group)
        for number in group:
            rows = pack.rows[number]
            assert tuple(pack.ids[r] for r in rows) == texts[number]
            assert [pack.places[r] for r in rows] == list(range(len(rows)))
            assert seen(pack, rows[-1]) == rows
            assert seen(pack, rows[len(rows) // 2]) == rows[: len(rows) // 2 + 1]
    assert sorted(placed) == list(range(len(texts)))


@pytest.mark.parametrize("seed", range(20))
def test_a_pack_has_at_most_its_tokens_or_is_one_branch(seed: int) -> None:
    forest = grown(texts_of(seed, 60))
    for tokens in (80, 150, 400):
        for group in packs(forest, tokens):
            if size(forest, group) > tokens:
                above = set.intersection(*(set(forest.paths[n]) for n in group))
                common = sum(forest.pieces[p].length for p in above)
                assert len(group) == 1 or size(forest, group) - common <= tokens // 4


def test_what_is_shared_is_there_once_in_each_pack() -> None:
    texts = [(*HEAD, 500 + n, *range(20)) for n in range(10)]
    forest = grown(texts)
    assert size(forest, list(range(10))) == 40 + 10 * 21
    for group in packs(forest, 124):
        assert size(forest, group) == 40 + 21 * len(group)
    assert [len(g) for g in packs(forest, 124)] == [4, 4, 2]


def test_beginnings_inside_beginnings_are_shared_as_deep_as_they_go() -> None:
    texts = [(*HEAD, 7 + n, *range(400, 410), 20 + m) for n in range(3) for m in range(4)]
    forest = grown(texts)
    assert size(forest, list(range(12))) == 40 + 3 * 11 + 12
    assert {len(path) for path in forest.paths.values()} == {3}


def test_a_beginning_too_short_to_be_worth_a_segment_is_read_by_each() -> None:
    for shared in (LEAST - 1, LEAST):
        forest = grown([(*HEAD[:shared], 1), (*HEAD[:shared], 2)])
        assert size(forest, [0, 1]) == (2 * shared + 2 if shared < LEAST else shared + 2)


def test_a_text_that_is_the_beginning_of_another_adds_no_tokens() -> None:
    forest = grown([HEAD, (*HEAD, 1, 2), HEAD[:20]])
    assert size(forest, [0, 1, 2]) == 42
    assert [sorted(group) for group in packs(forest, 42)] == [[0, 1, 2]]


def test_the_branches_of_one_record_stay_together() -> None:
    texts = [(record, *range(100, 150), 200 + prompt, *range(8)) for record in range(8) for prompt in range(5)]
    forest = grown(texts)
    assert size(forest, list(range(5))) == 96
    for group in packs(forest, 400):
        assert len(group) % 5 == 0
        assert {n // 5 for n in group} == {group[k] // 5 for k in range(0, len(group), 5)}


def test_texts_of_common_lengths_fill_packs() -> None:
    draw = random.Random(0)
    texts = [tuple(draw.randrange(10**6) for _ in range(draw.randrange(5, 300))) for _ in range(400)]
    forest = grown(texts)
    total = sum(map(len, texts))
    found = packs(forest, 2048)
    assert total / 2048 <= len(found) <= total / 2048 + 1.1
    assert packs(forest, 2048) == found


def test_conversations_that_each_go_on_from_the_last_are_no_trouble() -> None:
    texts = [tuple(range(10 * n)) for n in range(1, 400)]
    forest = grown(texts)
    group = list(range(len(texts)))
    rows = laid(forest, group).rows
    assert all(len(rows[n]) == len(texts[n]) for n in group)
    assert packs(grown([]), 100) == []


def test_two_thousand_beginnings_of_one_text_are_no_trouble() -> None:
    forest = grown([(1,) * n for n in range(1, 2001)])
    assert len(forest.paths) == 2000
    assert len(laid(forest, [0, 1999]).ids) <= 2001


def test_a_pack_is_filled_with_rows_that_see_nothing_else() -> None:
    pack = laid(grown([(5, 6, 7), (8, 9)]), [0, 1])
    more = filled(pack, 8)
    assert (more.ids[:5], more.places[:5], more.rows) == (pack.ids, pack.places, pack.rows)
    assert len(more.ids) == len(more.places) == 8
    assert more.stretches == (*pack.stretches, Stretch(5, 8, 8))
    assert filled(pack, 5) == pack
