"""Is no cap ever passed, whatever is under way, and does the ledger bracket what was billed, whenever it ends?"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tunesift.books import Asking, Attempt, Billed
from tunesift.budget import Caps, Price
from tunesift.errors import BudgetSpent, StorageError
from tunesift.running import ledger as books
from tunesift.running.ledger import Amount, Ledger, Spent, _Entry, read_spent

PRICES = {"m": Price(prompt=1.0, completion=2.0)}


def asking(prompt: int = 10, completion: int = 5, model: str = "m") -> Asking:
    return Asking(model, f'"{model}" at there', "/chat/completions", "0" * 32, prompt, completion)


def ended(request: Asking, billed: Billed, prompt: int = 0, completion: int = 0) -> Attempt:
    return Attempt(request, "", billed, prompt, completion, None, 0.0)


def total(ledger: Ledger) -> tuple[int, int]:
    """Tokens that are exactly known, and those that may have been billed beside them."""
    spent = ledger.spent()
    return sum(s.exact_prompt + s.exact_completion for s in spent), sum(s.unknown_tokens for s in spent)


def test_each_way_to_be_billed_is_entered_as_what_it_is(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Caps(), PRICES)
    for billed, prompt, completion in (("exact", 7, 3), ("counted", 10, 4), ("unknown", 10, 5), ("nothing", 0, 0)):
        request = asking() if billed != "nothing" else asking(20, 9)
        ledger.reserve(request)
        ledger.settle(ended(request, billed, prompt, completion))  # type: ignore[arg-type]
    (spent,) = ledger.spent()
    assert (spent.calls, spent.exact_prompt, spent.exact_completion, spent.exact_micros) == (3, 7, 3, 13)
    assert (spent.unknown_tokens, spent.unknown_micros) == (14 + 15, 18 + 20)


@pytest.mark.parametrize(
    ("caps", "said"),
    [
        (
            Caps(tokens=100),
            r"^the next request may take up to 15 tokens and 90 of 100 are spent; raise --max-tokens and start again",
        ),
        (
            Caps(micros=130),
            r"^the next request may cost up to 0\.00002 and 0\.00012 of 0\.00013 is spent; raise --max-cost and start again",
        ),
        (Caps(calls=6), r"^6 of 6 calls are made; raise max_calls and start again to go on\.$"),
    ],
)
def test_what_may_pass_a_cap_is_not_sent(tmp_path: Path, caps: Caps, said: str) -> None:
    ledger = Ledger(tmp_path, caps, PRICES)
    for _ in range(6):
        request = asking()
        ledger.reserve(request)
        ledger.settle(ended(request, "exact", 10, 5))
    with pytest.raises(BudgetSpent, match=said) as refusal:
        ledger.reserve(asking())
    assert refusal.value.exit_code == 4
    ledger.close()
    higher = Ledger(tmp_path, Caps(), PRICES)
    higher.reserve(asking())  # a higher cap goes on
    assert total(higher) == (90, 0)


def test_amounts_are_added_and_taken_away_place_by_place() -> None:
    assert Amount(5, 50, 500) - Amount(1, 20, 300) == Amount(4, 30, 200)
    assert Amount(5, 50, 500) + Amount(1, 20, 300) == Amount(6, 70, 800)


def test_money_is_said_without_a_point_where_it_is_whole(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Caps(micros=1_000_000), {"m": Price(prompt=100_000.0, completion=200_000.0)})
    with pytest.raises(BudgetSpent, match=r"^the next request may cost up to 2 and 0 of 1 is spent; raise --max-cost"):
        ledger.reserve(asking())
    ledger.close()


def test_a_model_without_a_price_is_entered_with_its_tokens_and_no_money(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Caps(), PRICES)
    for billed in ("exact", "unknown"):
        request = asking(model="free")
        ledger.reserve(request)
        ledger.settle(ended(request, billed, 7, 3))
    assert ledger.spent() == [Spent("free", 2, 7, 3, 0, 15, 0)]
    ledger.close()


def test_a_model_that_was_never_billed_has_no_place_in_what_was_spent(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Caps(), PRICES)
    request = asking()
    ledger.reserve(request)
    ledger.settle(ended(request, "nothing"))
    assert ledger.spent() == []
    ledger.close()


def test_what_has_no_room_alone_is_refused_before_it_is_held_and_what_has_is_let_through(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Caps(tokens=30), PRICES)
    request = asking()
    ledger.reserve(request)
    ledger.check(asking(25, 5))  # it has no room beside what is under way, and may have it soon
    with pytest.raises(BudgetSpent, match=r"^the next request may take up to 31 tokens and 0 of 30 are spent; raise"):
        ledger.check(asking(25, 6))
    ledger.settle(ended(request, "exact", 10, 5))
    ledger.check(asking())
    with pytest.raises(BudgetSpent, match=r"^the next request may take up to 16 tokens and 15 of 30 are spent; raise"):
        ledger.check(asking(10, 6))
    ledger.close()


def test_a_word_is_said_once_when_most_of_a_cap_is_spent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(tmp_path, Caps(tokens=1000), PRICES)
    said = []
    for used in (400, 400, 1, 50, 50):
        request = asking(used, 0)
        ledger.reserve(request)
        ledger.settle(ended(request, "exact", used, 0))
        said.append([r.message for r in caplog.records])
    ledger.close()
    word = ["more than 80 percent of the budget is spent"]
    assert said == [[], [], word, word, word]  # 800 of 1,000 is no more than 80 percent


def test_a_request_waits_for_room_that_others_may_leave(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Caps(tokens=20), PRICES)
    first, second = asking(), asking()
    ledger.reserve(first)
    waiting = threading.Thread(target=ledger.reserve, args=(second,))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    ledger.settle(ended(first, "exact", 2, 1))
    waiting.join(5)
    assert not waiting.is_alive()
    ledger.settle(ended(second, "nothing"))
    ledger.close()


def test_what_was_under_way_when_the_process_ended_is_unknown_at_its_bound(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Caps(), PRICES)
    request = asking()
    ledger.reserve(request)
    ledger.reserve(asking())
    ledger.settle(ended(request, "exact", 3, 1))
    ledger.close()  # as the kernel would, with a reservation left
    again = Ledger(tmp_path, Caps(tokens=33), PRICES)
    assert total(again) == (4, 15)
    assert again.spent() == [Spent("m", 2, 3, 1, 5, 15, 20)]
    with pytest.raises(BudgetSpent):
        again.reserve(asking())
    again.close()
    dear = Ledger(tmp_path, Caps(micros=44), PRICES)  # 25 are or may be spent, and another request may cost 20
    with pytest.raises(BudgetSpent):
        dear.reserve(asking())
    dear.close()
    Ledger(tmp_path, Caps(micros=45), PRICES).reserve(asking())


def test_a_reservation_is_on_disk_before_the_request_may_leave(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Caps(), PRICES)
    ledger.reserve(asking())
    beside = sqlite3.connect(tmp_path / "money.db")
    assert beside.execute("SELECT tokens, micros FROM reservation").fetchall() == [(15, 20)]


def test_what_was_settled_is_on_disk_soon_though_nobody_asks_for_anything_more(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Caps(), PRICES)
    request = asking()
    ledger.reserve(request)
    ledger.settle(ended(request, "exact", 3, 1))
    beside, until = sqlite3.connect(tmp_path / "money.db"), time.monotonic() + 5
    while beside.execute("SELECT count(*) FROM reservation").fetchone() != (0,):
        assert time.monotonic() < until, "a kill would make what is exactly known an unknown"
        time.sleep(0.01)
    assert beside.execute("SELECT exact_prompt, exact_completion FROM spend").fetchall() == [(3, 1)]
    ledger.close()


def test_who_waits_for_a_reservation_does_not_wait_for_what_is_held_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "HOLD_S", 3.0)
    ledger = Ledger(tmp_path, Caps(), PRICES)
    request = asking()
    ledger.reserve(request)
    began = time.monotonic()
    for _ in range(5):
        ledger.settle(ended(request, "exact", 3, 1))
        ledger.reserve(request := asking())
    assert time.monotonic() - began < 10
    ledger.close()


def test_a_ledger_that_nobody_closed_keeps_no_process_from_ending(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    ledger = Ledger(tmp_path, Caps(), PRICES)
    assert [(t.name, t.daemon) for t in threading.enumerate() if t not in before] == [("ledger", True)]
    ledger.close()


def test_512_callers_together_do_not_pass_a_cap(tmp_path: Path) -> None:
    cap = 3_000
    ledger = Ledger(tmp_path, Caps(tokens=cap), PRICES)
    billed, refused = [0], []
    lock = threading.Lock()

    def caller(seed: int) -> None:
        draw = random.Random(seed)
        try:
            for _ in range(5):
                request = asking(draw.randrange(1, 12), draw.randrange(1, 12))
                ledger.reserve(request)
                used = draw.randrange(request.prompt_bound + 1), draw.randrange(request.completion_bound + 1)
                with lock:
                    billed[0] += sum(used)
                ledger.settle(ended(request, "exact", *used))
        except BudgetSpent:
            refused.append(seed)

    threads = [threading.Thread(target=caller, args=(n,)) for n in range(512)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.close()
    assert refused
    assert cap - 24 < billed[0] <= cap
    assert total(Ledger(tmp_path, Caps(), PRICES)) == (billed[0], 0)


class Provider:
    """Bills a random part of what a request may cost, loses answers, refuses, and honours max_tokens."""

    def __init__(self, seed: int) -> None:
        self.draw, self.lock, self.billed = random.Random(seed), threading.Lock(), 0

    def answer(self, request: Asking) -> Attempt:
        with self.lock:
            used = self.draw.randrange(request.prompt_bound + 1), self.draw.randrange(request.completion_bound + 1)
            billed: Billed = self.draw.choices(["exact", "counted", "unknown", "nothing"], [6, 1, 2, 2])[0]
            self.billed += 0 if billed == "nothing" else sum(used)
        counted = (request.prompt_bound, request.completion_bound)
        return ended(request, billed, *((0, 0) if billed == "nothing" else used if billed == "exact" else counted))


def scenario(folder: Path, seed: int, threads: int) -> tuple[int, int]:
    """What was billed and what the cap was, of a run of so many threads in up to three lives."""
    draw, provider = random.Random(seed), Provider(seed)
    cap, lives = draw.randrange(200, 2500), draw.randrange(1, 4)
    for _ in range(lives):
        ledger, left = Ledger(folder, Caps(tokens=cap), PRICES), iter(range(draw.randrange(20, 200)))

        workers = [
            threading.Thread(target=work, args=(ledger, provider, left, seed * 1000 + n), daemon=True)
            for n in range(threads)
        ]
        for worker in workers:
            worker.start()
        until = time.monotonic() + 0.1  # who waits for what a dead one held is cut off with the life
        for worker in workers:
            worker.join(max(0.0, until - time.monotonic()))
        give_up(ledger)
        for worker in workers:
            worker.join()
    exact, unknown = total(Ledger(folder, Caps(), PRICES))
    assert exact <= provider.billed <= exact + unknown
    return provider.billed, cap


def work(ledger: Ledger, provider: Provider, left: Iterator[int], seed: int) -> None:
    """One of many callers: three attempts at each request, and now and then a death before the answer is entered."""
    own = random.Random(seed)
    try:
        while next_of(left, provider.lock):
            for _ in range(3):
                request = asking(own.randrange(1, 40), own.randrange(1, 40))
                ledger.reserve(request)
                attempt = provider.answer(request)
                if own.random() < 0.01:
                    return
                ledger.settle(attempt)
                if attempt.billed in ("exact", "counted"):
                    break
    except BudgetSpent:
        return


def next_of(left: Iterator[int], lock: threading.Lock) -> bool:
    with lock:
        return next(left, None) is not None


def give_up(ledger: Ledger) -> None:
    """End a life: nothing more is reserved, and what is held stays held."""
    with ledger._changed:
        ledger._caps = Caps(tokens=0)
        ledger._changed.notify_all()
    ledger._put(_Entry([]), wait=True)


@pytest.mark.slow
def test_R26_in_a_hundred_scenarios_no_cap_is_passed(tmp_path: Path) -> None:
    spent = 0.0
    for seed in range(100):
        folder = tmp_path / str(seed)
        folder.mkdir()
        billed, cap = scenario(folder, seed, (1, 2, 8, 32, 128, 512)[seed % 6] if seed % 3 == 0 else 16)
        assert billed <= cap, seed
        spent += billed / cap
    assert spent / 100 > 0.3, "and it was nearly used"


@pytest.mark.parametrize("threads", [1, 4, 32])
def test_R27_overshoot_is_no_more_than_the_excess_of_those_in_flight(tmp_path: Path, threads: int) -> None:
    ledger, over, lock = Ledger(tmp_path, Caps(tokens=100_000), PRICES), [0], threading.Lock()
    said: list[str] = []

    def caller() -> None:
        try:
            for _ in range(50):
                request = asking()
                ledger.reserve(request)
                with lock:
                    over[0] += 500
                ledger.settle(ended(request, "counted", 515 - 5, 5))
        except BudgetSpent as error:
            said.append(str(error))

    callers = [threading.Thread(target=caller) for _ in range(threads)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert 2 * 500 <= over[0] <= (threads + 1) * 500
    assert all("times more than a request can cost" in text for text in said)
    assert len(said) == threads


def test_a_file_of_requests_is_held_until_a_later_life_settles_it_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Caps(tokens=60), PRICES)
    file = [replace(asking(), request=f"r{n}") for n in range(3)]
    ledger.reserve_together(file)
    with pytest.raises(BudgetSpent):
        ledger.reserve_together([asking() for _ in range(5)])
    ledger.settle(ended(file[0], "exact", 3, 1))
    ledger.close()
    assert sum(s.unknown_tokens for s in read_spent(tmp_path)) == 30
    again = Ledger(tmp_path, Caps(tokens=60), PRICES)
    assert total(again) == (4, 30)
    file = [replace(one) for one in file]
    again.adopt(file)
    for one in file:  # the first of them was settled before the process ended
        again.settle(ended(one, "exact", 3, 1))
    assert total(again) == (12, 0)
    again.reserve_together([replace(asking(), request=f"s{n}") for n in range(3)])
    again.close()
    assert [(s.exact_prompt, s.unknown_tokens) for s in read_spent(tmp_path)] == [(9, 45)]


def test_what_a_later_life_takes_over_is_held_back_until_it_is_settled(tmp_path: Path) -> None:
    first = Ledger(tmp_path, Caps(), PRICES)
    sent = [asking(), replace(asking(), request="1" * 32)]
    first.reserve_together(sent)
    first.close()
    again = Ledger(tmp_path, Caps(tokens=40), PRICES)
    again.adopt(sent)  # 15 each
    waiting = threading.Thread(target=again.reserve, args=(asking(),))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    again.settle(ended(sent[0], "exact", 2, 1))
    waiting.join(5)
    assert not waiting.is_alive()
    again.close()


@pytest.mark.parametrize("caps", [Caps(calls=2), Caps(tokens=19), Caps(micros=25)], ids=["calls", "tokens", "money"])
def test_what_an_earlier_life_sent_counts_after_it_is_settled_as_if_this_one_had_sent_it(
    tmp_path: Path, caps: Caps
) -> None:
    first = Ledger(tmp_path, Caps(), PRICES)
    sent, following = asking(), asking()
    first.reserve_together([sent])
    first.close()
    again = Ledger(tmp_path, caps, PRICES)
    again.adopt([sent])
    again.settle(ended(sent, "exact", 3, 1))  # 1 call, 4 tokens, 5 millionths
    again.reserve(following)  # 1 call, 15 tokens, 20 millionths: just what is left
    again.settle(ended(following, "exact", 10, 5))
    with pytest.raises(BudgetSpent):
        again.reserve(asking())
    again.close()


def test_a_later_life_sends_a_file_of_its_own_beside_one_that_is_still_out(tmp_path: Path) -> None:
    first = Ledger(tmp_path, Caps(), PRICES)
    first.reserve_together([replace(asking(), request=f"a{n}") for n in range(3)])
    first.close()
    again = Ledger(tmp_path, Caps(), PRICES)
    file = [replace(asking(), request=f"b{n}") for n in range(3)]
    again.reserve_together(file)
    assert total(again) == (0, 45), "what this life has under way is not spent yet"
    again.settle(ended(file[0], "nothing"))
    again.close()
    assert total(Ledger(tmp_path, Caps(), PRICES)) == (0, 75)


def test_a_file_of_requests_is_on_disk_before_it_may_leave_and_read_whole_from_outside(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Caps(), PRICES)
    ledger.reserve_together([replace(asking(), request=f"{n:032x}") for n in range(200)])
    beside = sqlite3.connect(tmp_path / "money.db")
    assert beside.execute("SELECT count(*), sum(tokens) FROM batched").fetchone() == (200, 3000)
    beside.close()
    ledger.close()
    (spent,) = read_spent(tmp_path)
    assert (spent.calls, spent.unknown_tokens) == (200, 3000)


def test_what_goes_wrong_with_the_disk_names_the_folder_of_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Caps(), PRICES)
    ledger._db.close()
    for ask in (ledger._read, lambda: ledger.reserve(asking()), lambda: ledger.reserve_together([asking()])):
        with pytest.raises(StorageError) as refusal:
            ask()
        assert str(refusal.value).startswith(f"{tmp_path}")
    (tmp_path / "money.db").write_bytes(b"no database, and long enough for SQLite to look at it" * 99)
    with pytest.raises(StorageError) as refusal:
        read_spent(tmp_path)
    assert str(refusal.value).startswith(f"{tmp_path / 'money.db'}: ")
    with pytest.raises(StorageError) as refusal:
        Ledger(tmp_path, Caps(), PRICES)
    assert str(refusal.value).startswith(f"{tmp_path}: ")


def test_a_provider_that_bills_more_than_a_request_can_cost_ends_the_run(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Caps(), PRICES)
    for _ in range(2):
        request = asking()
        ledger.reserve(request)
        ledger.settle(ended(request, "counted", 500, 5))
    with pytest.raises(BudgetSpent, match=r"^m: billed 2 times more than a request can cost; check its prices"):
        ledger.reserve(asking())
    assert total(ledger) == (0, 1010)


def test_a_ledger_that_cannot_be_written_stops_everybody(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Caps(), PRICES)
    ledger._db.execute("DROP TABLE reservation")
    for _ in range(3):
        with pytest.raises(StorageError, match=r"money\.db: no such table: reservation; check the disk"):
            ledger.reserve(asking())
    ledger.close()


class Money(RuleBasedStateMachine):
    """Reserve, settle, fail and die in any order."""

    CAP = 200

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.home = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Path(self.home.name), Caps(tokens=self.CAP), PRICES)
        self.under_way: list[Asking] = []
        self.billed = 0

    def teardown(self) -> None:
        self.ledger.close()
        self.home.cleanup()

    @rule(prompt=st.integers(0, 40), completion=st.integers(0, 40))
    def reserve(self, prompt: int, completion: int) -> None:
        request = asking(prompt, completion)
        held = sum(a.prompt_bound + a.completion_bound for a in self.under_way)
        if (
            sum(total(self.ledger)) + held + prompt + completion
            > self.CAP
            >= sum(total(self.ledger)) + prompt + completion
        ):
            return  # it would wait
        try:
            self.ledger.reserve(request)
        except BudgetSpent:
            return
        self.under_way.append(request)

    @precondition(lambda self: self.under_way)
    @rule(share=st.floats(0, 1), billed=st.sampled_from(["exact", "counted", "unknown", "nothing"]))
    def settle(self, share: float, billed: Billed) -> None:
        request = self.under_way.pop()
        used = int(share * request.prompt_bound), int(share * request.completion_bound)
        self.billed += 0 if billed == "nothing" else sum(used)
        self.ledger.settle(ended(request, billed, *((0, 0) if billed == "nothing" else used)))

    def _again(self) -> Ledger:
        left, self.under_way = self.under_way, []
        self.billed += sum(a.prompt_bound for a in left)  # they were sent, and billed for their prompts at least
        return Ledger(Path(self.home.name), Caps(tokens=self.CAP), PRICES)

    @rule()
    def die(self) -> None:
        self.ledger.close()
        self.ledger = self._again()

    @invariant()
    def the_cap_holds_and_the_ledger_brackets_the_bill(self) -> None:
        exact, unknown = total(self.ledger)
        held = sum(a.prompt_bound + a.completion_bound for a in self.under_way)
        assert exact <= self.billed <= exact + unknown
        assert exact + unknown + held <= self.CAP


TestMoney = Money.TestCase
TestMoney.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 100), st.floats(0, 100))
def test_a_price_never_rounds_down(prompt: int, completion: int, a: float, b: float) -> None:
    assert Price(a, b).micros(prompt, completion) >= prompt * a + completion * b
