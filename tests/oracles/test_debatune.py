"""DEBATunE held against its card: the table of lists, the structure of a debate, the number of calls.

Its acceptance oracles are numbered here in the order of their lines in debatune.md: 1 the argument parser, 5 the calls,
6 the structure; 2 the judge parser and 3 the arithmetic of controllability stand in test_controllability.py, 7 bad input
in test_debatune_story.py. 4, the arithmetic of response quality, is of a comparison of two models that we do not have.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from harness.debater import debated
from harness.walking import walked
from tunesift import (
    Completion,
    Dataset,
    Debating,
    Debatune,
    Failure,
    Message,
    Record,
    Sampling,
    ScriptedModel,
    read_dataset,
)
from tunesift.methods.controllability_figures import words
from tunesift.methods.debatune_prompts import mention, prompt_leak
from tunesift.methods.debatune_reading import (
    distinct,
    is_wh_question,
    plain,
    read_arguments,
    read_statement,
    read_turn,
)
from tunesift.methods.debatune_templates import TEMPLATES, TEST_TEMPLATE
from tunesift.running.result import Result
from tunesift.scoring.duplicates import NearTexts

SPOKEN: list[tuple[str, str]] = []
"""System and user message of every call."""


@pytest.fixture(autouse=True)
def _nobody_has_spoken() -> None:
    SPOKEN.clear()


def said(text: str, stop: Literal["stop", "length"] = "stop") -> Completion:
    return Completion(text, stop, 1)


@dataclass(frozen=True, kw_only=True)
class Agent(ScriptedModel):
    """Argues by rule, and ends every turn with its system message; a statement with that would be none."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        return [self._said(c) for c in conversations]

    def _said(self, conversation: Sequence[Message]) -> Completion:
        system, user = conversation
        assert (system.role, user.role) == ("system", "user")
        SPOKEN.append((system.text, user.text))
        text = debated(user.text)
        return said(f"{text} I was told: {system.text}" if text.startswith("Turn ") else text)


def topics(*texts: str) -> Dataset[Record]:
    return Dataset.of([Record(f"t{n}", (Message("user", text),)) for n, text in enumerate(texts, start=1)])


TOPIC = "We should ban the use of child actors"

# --- the card's table of lists ---------------------------------------------------------------------------------------

LISTS = {
    "the usual list":
        ("1. Cars pollute.\n2. Buses are cheaper.\n3. Trains are safer.",
         ["Cars pollute.", "Buses are cheaper.", "Trains are safer."]),
    "with a bracket":
        ("1) Cars pollute.\n2) Buses are cheaper.", ["Cars pollute.", "Buses are cheaper."]),
    "a decimal in an item":
        ("1. Costs rose 3.5 percent last year.\n2. Buses are cheaper.",
         ["Costs rose 3.5 percent last year.", "Buses are cheaper."]),
    "a year with a full stop":
        ("1. In 2020. emissions fell.\n2. Buses.", ["In 2020. emissions fell.", "Buses."]),
    "a wrapped line":
        ("1. Cars pollute\nthe air.\n2. Buses are cheaper.", ["Cars pollute the air.", "Buses are cheaper."]),
    "the same twice":
        ("1. Cars pollute.\n2. Cars pollute.", ["Cars pollute."]),
    "a remark at the end":
        ("1. Cars pollute.\n2. Buses are cheaper.\n\nThese are my points.", ["Cars pollute.", "Buses are cheaper."]),
}  # fmt: skip

OURS = {
    "a remark before, bold and quotes":
        ("Sure, 2 of them:\n\n**1. Cars pollute.**\n\n2. **Buses** are cheaper.\n3. “Trains are safer.”",
         ["Cars pollute.", "Buses are cheaper.", "Trains are safer."]),
    "every item has the number 1":
        ("1. Cars pollute.\n1. Buses are cheaper.\n1. Trains are safer.",
         ["Cars pollute.", "Buses are cheaper.", "Trains are safer."]),
    "a number is left out":
        ("1. Cars pollute.\n3. Buses are cheaper.", ["Cars pollute.", "Buses are cheaper."]),
    "a year at the beginning of a wrapped line":
        ("1. It fell in\n2020. Nobody knows why.\n2. Buses.", ["It fell in 2020. Nobody knows why.", "Buses."]),
    "a decimal at the beginning of a line":
        ("1.5 million say so.\n1. Cars pollute.", ["Cars pollute."]),
    "an argument in another script":
        ("1. 汽车污染空气。\n2. 公共汽车更便宜。", ["汽车污染空气。", "公共汽车更便宜。"]),
    "differing in case and punctuation":
        ("1. Cars pollute.\n2. CARS pollute!\n3. Buses.", ["Cars pollute.", "Buses."]),
    "bullets around the numbers":
        ("- 1. Cars pollute.\n- 2. Buses.", ["Cars pollute.", "Buses."]),
    "numbers in brackets":
        ("(1) Cars pollute.\n(2) Buses are cheaper.", ["Cars pollute.", "Buses are cheaper."]),
    "numbers as headings":
        ("### 1. Cars pollute.\n\n### 2. Buses are cheaper.", ["Cars pollute.", "Buses are cheaper."]),
    "numbers of questions":
        ("Q1: Cars pollute.\nQ2: Buses are cheaper.", ["Cars pollute.", "Buses are cheaper."]),
    "numbers of Chinese":
        ("1、汽车污染空气。\n2、公共汽车更便宜。", ["汽车污染空气。", "公共汽车更便宜。"]),
    "numbers without a space":
        ("1.Cars pollute.\n2.buses are cheaper.\n3.“Trains” are safer.",
         ["Cars pollute.", "buses are cheaper.", "“Trains” are safer."]),
    "numbers in brackets inside an item":
        ("1. Cars do two things:\n(1) noise and\n(2) dirt.\n2. Buses are cheaper.",
         ["Cars do two things: (1) noise and (2) dirt.", "Buses are cheaper."]),
    "an item that begins on the next line":
        ("1.\nCars pollute.\n2.\nBuses are cheaper.", ["Cars pollute.", "Buses are cheaper."]),
    "thought aloud before":
        ("<think>1. Perhaps.</think>1. Cars pollute.", ["Cars pollute."]),
}  # fmt: skip


@pytest.mark.parametrize("name", [*LISTS, *OURS])
def test_oracle_1_lists_of_arguments_are_read_as_the_card_has_it(name: str) -> None:
    text, expected = (LISTS | OURS)[name]
    found = read_arguments(said(text))
    assert not isinstance(found, Failure)
    assert distinct(found) == expected


NO_LISTS = {
    "prose": (said("Cars pollute, and buses are cheaper."), Failure("unreadable", "no numbered list")),
    "bullets": (said("- Cars pollute.\n- Buses."), Failure("unreadable", "no numbered list")),
    "nothing": (said("  \n "), Failure("empty", "the completion is empty")),
    "numbers without words": (said("1.\n2.\n"), Failure("unreadable", "no numbered list")),
    "a refusal": (said("I'm sorry, but I cannot help with that."), Failure("refused", "refusal")),
    "cut in its first item": (said("1. Cars poll", "length"), Failure("too-long", "cut before its first argument ended")),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_LISTS)
def test_a_reply_without_a_list_says_why_it_has_none(name: str) -> None:
    completion, expected = NO_LISTS[name]
    assert read_arguments(completion) == expected


def test_an_item_that_was_cut_is_none() -> None:
    assert read_arguments(said("1. Cars pollute.\n2. Buses are ch", "length")) == ["Cars pollute."]


# --- calls -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "rounds", "calls"), [(3, 2, 32), (1, 2, 12), (5, 2, 52), (3, 1, 20), (3, 3, 44)])
def test_oracle_5_calls_for_a_topic_are_the_card_s(tmp_path: Path, arguments: int, rounds: int, calls: int) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Five(Agent):
        def _said(self, conversation: Sequence[Message]) -> Completion:
            found = super()._said(conversation)
            if not found.text.startswith("Here they are"):
                return found
            side = "for" if "affirmative" in conversation[1].text else "against"
            return said(f"{found.text}\n4. Reason four {side} it counts.\n5. Reason five {side} it counts.")

    method = Debatune(teacher=Five(), arguments=arguments, rounds=rounds)
    result = walked(method, tmp_path, topics(TOPIC))
    assert len(SPOKEN) == calls == 2 * (1 + arguments * (2 * rounds + 1))
    assert len(result.data or ()) == 2 * arguments
    planned = method.plan(1)
    assert sum(p.items for p in planned if not p.spare) == calls
    assert sum(p.items for p in method.plan(630) if not p.spare) == 630 * calls  # 20,160 and 32,760 for the card's


def test_one_side_alone_costs_half(tmp_path: Path) -> None:
    method = Debatune(teacher=Agent(), sides="negative")
    result = walked(method, tmp_path, topics(TOPIC))
    assert len(SPOKEN) == 16 == sum(p.items for p in method.plan(1) if not p.spare)
    assert {r.extra["side"] for r in result.data or ()} == {"negative"}


def test_what_a_debater_reads_grows_by_a_turn_a_turn(tmp_path: Path) -> None:
    walked(Debatune(teacher=Agent()), tmp_path, topics(TOPIC))
    shown = Counter(len(re.findall(r"\bTurn [0-9a-f]{8}", user)) for _, user in SPOKEN if "given-argument" in user)
    assert shown == {turns: 6 for turns in range(5)}  # card, Cost: 0+1+2+3+4 turns an argument


# --- structure -------------------------------------------------------------------------------------------------------


@pytest.fixture
def debate(tmp_path: Path) -> Result:
    return walked(Debatune(teacher=Agent()), tmp_path, topics(TOPIC))


def of_stage(begin: str) -> list[tuple[str, str]]:
    return [(system, user) for system, user in SPOKEN if begin in user]


def test_oracle_6_the_owner_opens_replies_and_concludes_and_the_opponent_rebuts(debate: Result) -> None:
    stands = re.compile(r"You stand on the (\w+) side; your opponent stands on the (\w+) side|you hold the (\w+) side")
    roles = Counter()
    for system, user in SPOKEN:
        found = stands.search(system)
        assert found is not None
        stage = next((name for name, begin in {
            "open": "This is your argument", "rebut": "Your opponent proposes", "own reply": "which is your own",
            "counter": "which is your opponent's", "conclude": "it must stand on its own",
        }.items() if begin in user), "name")  # fmt: skip
        argued = re.search(r"Reason \d (for|against)", user)
        roles[stage, argued and argued[1], found[1] or found[3]] += 1
    assert roles == {
        ("name", None, "affirmative"): 1, ("name", None, "negative"): 1,
        **{(stage, "for", "affirmative"): 3 for stage in ("open", "own reply", "conclude")},
        **{(stage, "against", "negative"): 3 for stage in ("open", "own reply", "conclude")},
        **{(stage, "for", "negative"): 3 for stage in ("rebut", "counter")},
        **{(stage, "against", "affirmative"): 3 for stage in ("rebut", "counter")},
    }  # fmt: skip


def test_oracle_6_nobody_receives_the_system_message_of_another(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Discreet(Agent):
        def _said(self, conversation: Sequence[Message]) -> Completion:
            SPOKEN.append((conversation[0].text, conversation[1].text))
            return said(debated(conversation[1].text))

    walked(Debatune(teacher=Discreet()), tmp_path, topics(TOPIC))
    systems = {system for system, _ in SPOKEN}
    assert len(systems) == 4  # two debaters and two observers
    assert not [user for _, user in SPOKEN for system in systems if system in user or "opponent stands" in user]


def test_oracle_6_the_conclusion_reads_all_turns_in_order_under_the_names_of_the_sides(debate: Result) -> None:
    for _, user in of_stage("it must stand on its own"):
        side, other = (
            ("Affirmative", "Negative") if " for " in user.split("given-argument")[1] else ("Negative", "Affirmative")
        )
        labels = re.findall(r"^(\w+): Turn", user, re.M)
        assert labels == [side, other, side, other]
        turns = re.findall(r"Turn [0-9a-f]{8}", user)
        assert len(set(turns)) == 4
    for _, user in of_stage("which is your own"):
        assert re.findall(r"^(\w+): Turn", user, re.M) == ["AI", "Opponent"]
        assert user.endswith("\n\nAI:")
    for _, user in of_stage("which is your opponent's"):
        assert re.findall(r"^(\w+): Turn", user, re.M) == ["Opponent", "AI", "Opponent"]
    assert len(of_stage("it must stand on its own")) == 6


def test_oracle_6_no_request_has_a_place_that_is_not_filled(debate: Result) -> None:
    assert not [text for pair in SPOKEN for text in pair if re.search(r"[{}]", text)]


def test_oracle_6_the_output_is_the_conclusion_and_never_a_turn(debate: Result, tmp_path: Path) -> None:
    assert debate.data is not None
    turns = {found for _, user in SPOKEN for found in re.findall(r"Turn [0-9a-f]{8}", user)}
    for record in debate.data:
        assert record.response.startswith("A statement about the matter")
        assert not [turn for turn in turns if turn in record.response]
        assert set(record.extra) == {"topic", "side", "argument", "template_id", "rounds"}
        assert (record.extra["topic"], record.extra["rounds"]) == (TOPIC, 2)


def test_oracle_6_there_are_as_many_rows_as_arguments(tmp_path: Path) -> None:
    lists = {
        "affirmative": "1. One for it.\n2. Two for it.",
        "negative": "1. One against.\n2. One against.\n3. Two against.",
    }
    replies = {f"for the {side} side of the topic": text for side, text in lists.items()}
    for number, argument in enumerate(("One for it", "Two for it", "One against", "Two against")):
        statement = "A statement " + " ".join(f"w{n}of{number}" for n in range(60))
        replies[f"{argument}.\n</given-argument>\n\nWhat was said:"] = statement
    replies["AI:"] = "A turn."
    result = walked(Debatune(teacher=ScriptedModel(replies=replies)), tmp_path, topics(TOPIC))
    assert [r.id for r in result.data or ()] == [
        "t1~affirmative-1", "t1~affirmative-2", "t1~negative-1", "t1~negative-2",
    ]  # fmt: skip
    assert result.decisions[0].reason == (
        "debated: 4 statements created; affirmative 2 of 3 arguments (no more were named); "
        "negative 2 of 3 arguments (no more were named)"
    )
    assert [d.parents for d in result.decisions[1:]] == [("t1",)] * 4


def test_oracle_6_the_same_seed_draws_the_same_wordings_and_another_one_others(tmp_path: Path) -> None:
    drawn = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        result = walked(Debatune(teacher=Agent()), tmp_path / name, topics(TOPIC, "The Olympics are worth it"), seed)
        drawn[name] = [r.extra["template_id"] for r in result.data or ()]
    assert drawn["a"] == drawn["b"] != drawn["c"]
    assert set(drawn["a"]) <= set(range(1, 12))
    assert len(set(drawn["a"])) > 3


def test_eleven_wordings_train_and_another_one_tests() -> None:
    assert len(set(TEMPLATES)) == 11
    assert TEST_TEMPLATE not in TEMPLATES
    for template in (*TEMPLATES, TEST_TEMPLATE):
        assert sorted(re.findall(r"\{(\w+)\}", template)) == ["argument", "side", "topic"]
    grams = [set(zip(w, w[1:], w[2:], strict=False)) for t in (*TEMPLATES, TEST_TEMPLATE) if (w := t.lower().split())]
    assert all(len(grams[-1] & other) < 3 for other in grams[:-1])  # no wording of training shows in that of tests


# --- topics ----------------------------------------------------------------------------------------------------------


def test_of_the_published_topics_the_34_that_ask_what_or_how_are_refused(shared: Path) -> None:
    place = shared / "debatune"
    train = read_dataset(place / "debate_train_topics.json", prompts=True)
    test = read_dataset(place / "debate_test_arguments.jsonl", prompts=True)
    texts = [r.prompt[0].text for r in (*train, *test)]
    assert len(texts) == 710
    assert sum("?" in text for text in texts) == 384
    assert sum(map(is_wh_question, texts)) == 34
    assert len({plain(r.prompt[0].text) for r in train}) == 628
    assert not {plain(r.prompt[0].text) for r in train} & {plain(r.prompt[0].text) for r in test}


def test_oracle_6_topics_that_are_held_out_are_not_debated_so_that_train_and_test_are_disjoint(
    shared: Path, tmp_path: Path
) -> None:
    train = read_dataset(shared / "debatune" / "debate_train_topics.json", prompts=True, limit=8)
    held_out = tuple(r.prompt[0].text.upper() + "!" for r in train)[2:6]
    result = walked(Debatune(teacher=Agent(), held_out=held_out, arguments=1, rounds=1), tmp_path, train)
    assert not {plain(str(r.extra["topic"])) for r in result.data or ()} & set(map(plain, held_out))
    assert sum(d.reason.startswith("held out") for d in result.decisions) == 4 - sum(map(is_wh_question, held_out))


@pytest.mark.parametrize(("topic", "asks"), [
    ("What are the effects of the Cold War?", True), ("How should space be governed?", True),
    ("Which side was right?", True), ("To what extent is it fair?", True), ("“Who should pay?”", True),
    ("How to save the sea", True), ("Why do we need zoos", True), ("How can we save the sea", True), ("Should we ask what it costs?", False),
    ("Who should pay for healthcare", True), ("What the government should do about guns", True),
    ("How schools should teach history", True), ("What we eat should be taxed", False),
    ("Who pays should decide", False), ("Who should pay should decide", False),
    ("What doesn't kill us makes us stronger", False), ("When everybody pays, everybody gains", False),
    ("Is it wrong?", False), ("Whatever it takes, we should do it", False), ("Whether we should", False),
])  # fmt: skip
def test_a_question_that_begins_with_what_or_how_has_no_affirmative_side(topic: str, asks: bool) -> None:
    assert is_wh_question(topic) == asks


def test_the_published_arguments_are_debated_without_asking_for_any(shared: Path, tmp_path: Path) -> None:
    test = read_dataset(shared / "debatune" / "debate_test_arguments.jsonl", prompts=True, limit=4)
    result = walked(Debatune(teacher=Agent()), tmp_path, test)
    rows = [json.loads(line) for line in (shared / "debatune" / "debate_test_arguments.jsonl").read_text().splitlines()]
    given = [text for row in rows[:4] for side in ("Affirmative", "Negative") for text in row[side]["arguments"]]
    assert [r.extra["argument"] for r in result.data or ()] == given
    assert len(SPOKEN) == 4 * 30


def test_prompts_for_an_evaluation_cost_two_calls_a_topic_and_have_the_wording_of_tests(tmp_path: Path) -> None:
    method = Debatune(teacher=Agent(), make="prompts")
    result = walked(method, tmp_path, topics(TOPIC))
    assert len(SPOKEN) == 2 == sum(p.items for p in method.plan(1) if not p.spare)
    first = next(iter(result.data or ()))
    assert first.prompt == (Message("user", TEST_TEMPLATE.replace("{topic}", TOPIC).replace("{side}", "affirmative")
                                      .replace("{argument}", "Reason 1 for the matter counts.")),)  # fmt: skip
    assert (first.extra["template_id"], first.response) == (0, "")


def test_settings_are_sent_as_the_card_has_them(tmp_path: Path) -> None:
    sent: Counter[tuple[float, int]] = Counter()

    @dataclass(frozen=True, kw_only=True)
    class Noting(Agent):
        def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
            sent[sampling.temperature, sampling.max_tokens] += len(conversations)
            return super().chat(conversations, sampling)

    walked(Debatune(teacher=Noting()), tmp_path, topics(TOPIC))
    assert sent == {(0.7, 512): 2, (0.7, 800): 24, (0.7, 2048): 6}
    assert Debating() == Debatune(teacher=Agent()).debating


# --- refusals --------------------------------------------------------------------------------------------------------

REFUSALS = [
    "I'm sorry, but I cannot argue for that.", "As an AI language model, I don't have personal opinions.",
    "I cannot provide arguments for this side.", "Unfortunately, I cannot take part in that.",
    "I can’t help with that request.",
]  # fmt: skip
NO_REFUSALS = [
    "Unfortunately, many families cannot afford a doctor.", "We cannot ignore the evidence: prices rose in every year.",
    "As an AI tutor grows better, teachers gain time.", "I cannot stress enough that the sea is in danger.",
]  # fmt: skip


@pytest.mark.parametrize("text", [*REFUSALS, *NO_REFUSALS])
def test_a_refusal_is_told_from_a_regret(text: str) -> None:
    found = read_turn(said(text))
    assert (found == Failure("refused", "refusal")) == (text in REFUSALS)
    assert isinstance(found, Failure) or found == text


def test_a_third_of_the_published_answers_begin_with_a_disclaimer_and_none_of_these_would_be_a_row(
    shared: Path,
) -> None:
    answers = read_dataset(shared / "debatune" / "outputs_vicuna_7b_v1.5.json")
    failed = [r for r in answers if isinstance(read_statement(said(r.response), f"{r.extra['topic']}"), Failure)]
    assert 155 <= len(failed) <= 164  # card: 164 have one anywhere
    assert all(r.response.strip().startswith("As an AI language model") for r in failed)


def test_a_turn_that_disclaims_and_goes_on_is_one_and_a_statement_is_not() -> None:
    text = "As an AI language model, I have no personal opinions. However: " + "here is a reason. " * 20
    assert read_turn(said(text)) == text.strip()
    assert read_statement(said(text), TOPIC) == Failure("refused", "disclaimer")


STATEMENTS = {
    "cut": (said("A statement that goes on and", "length"), Failure("too-long", "truncated")),
    "empty": (said(" "), Failure("empty", "the completion is empty")),
    "talks to somebody": (said("My opponent says no."), Failure("unreadable", 'mentions the debate ("My opponent")')),
    "in another language": (said("Das sollte verboten werden, weil Kinder nicht arbeiten sollen und Schule brauchen."),
                            Failure("unreadable", "language (en became de)")),
    "holds our marks": (said("So. <given-debate> And so."), Failure("unreadable", "marker_inside")),
    "with its label": (said("**Affirmative:** Ban it."), "Ban it."),
}  # fmt: skip


TOLD = {
    "our request": ("Now write your own statement that makes this argument, with your explanations. Let it profit from "
                    "the debate.", 'prompt_leak ("now write your own statement that makes this")'),
    "our role": ("You are no party to it, but you hold the negative side, and speak for that side only.",
                 'prompt_leak ("you are no party to it but you")'),
    "an account": ("In this debate I have heard much. A ban is right.", 'mentions the debate ("In this debate")'),
    "both heard": ("I have heard both sides, and a ban is right.", 'mentions the debate ("I have heard both sides")'),
    "an observer": ("As an observer of the debate, I say: ban it.",
                    'mentions the debate ("As an observer of the debate")'),
    "the other side": ("The opposing side asked who pays. Studios do.",
                       'mentions the debate ("The opposing side asked")'),
    "the opponent": ("The opponent said that it is cheap.", 'mentions the debate ("The opponent said")'),
    "a dialogue": ("AI: Ban it.\nOpponent: Why?\nAI: It harms.", 'mentions the debate ("Opponent:")'),
    "labels in bold": ("So.\n**Negative:** No.", 'mentions the debate ("**Negative:")'),
}  # fmt: skip


@pytest.mark.parametrize("name", TOLD)
def test_what_we_told_the_model_and_an_account_of_the_debate_are_no_statement(name: str) -> None:
    text, reason = TOLD[name]
    about = f"{TOPIC}\nThey are exposed to exploitation by studios."
    assert read_statement(said(text), about) == Failure("unreadable", reason)


@pytest.mark.parametrize(("text", "about"), [
    ("In the debate over reproductive rights this is a principle.", TOPIC),
    ("The debate on child labour is old, and both sides of the border know it.", TOPIC),
    ("On the negative side, the formation of alliances made it worse.", TOPIC),
    ("AI: that is the word of the year.\nAI: it harms.", "AI should be regulated"),
    ("From the debate on television voters learn much, and in the debate they see both.", "We need a debate on television"),
    ("An observer of birds knows it. As an observer of birds one learns patience.", TOPIC),
])  # fmt: skip
def test_what_is_debated_in_the_world_may_be_said(text: str, about: str) -> None:
    assert read_statement(said(text), about) == (text.removeprefix("AI: "))


def test_no_published_answer_without_a_disclaimer_leaks_a_prompt_or_tells_of_the_debate(shared: Path) -> None:
    answers = read_dataset(shared / "debatune" / "outputs_vicuna_7b_v1.5.json")
    assert not [r.id for r in answers if prompt_leak(r.response) or mention(r.response, str(r.extra["topic"]))]


def test_no_two_published_answers_are_near_each_other(shared: Path) -> None:
    said = [words(r.response) for r in read_dataset(shared / "debatune" / "outputs_vicuna_7b_v1.5.json")]
    runs = [set(zip(w, w[1:], w[2:], strict=False)) for w in said]
    common = ((len(a & b), len(a | b)) for n, a in enumerate(runs) for b in runs[:n] if not a.isdisjoint(b))
    assert max(both / whole for both, whole in common) == pytest.approx(0.1865, abs=1e-4)
    near = NearTexts(3, 0.7)
    for answer in said:
        assert next(near.likes([answer]), None) is None
        near.add([answer])


def test_our_own_request_is_no_argument() -> None:
    ours = [f"Name the strongest arguments for the affirmative side of the topic {TOPIC}.",
            "Do not elaborate on them yet."]  # fmt: skip
    listed = "\n".join(f"{n}. {text}" for n, text in enumerate(ours, start=1))
    assert read_arguments(said(listed)) == Failure(
        "unreadable", 'prompt_leak ("name the strongest arguments for the affirmative side")'
    )
    assert read_arguments(said(f"{listed}\n3. Sets are no schools.")) == ["Sets are no schools."]
    assert read_arguments(said(f"1. Sets are no schools.\n2. {ours[1]}", "length")) == ["Sets are no schools."]


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_that_cannot_stand_alone_is_none(name: str) -> None:
    completion, expected = STATEMENTS[name]
    assert read_statement(completion, f"{TOPIC}\nThey are exposed to exploitation by studios.") == expected
