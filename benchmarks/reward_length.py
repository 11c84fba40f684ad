"""Does a reward grow with the length of an answer, with ODIN and without it? A tiny model trained on real pairs, twice.

    python benchmarks/reward_length.py --data DATA [--epochs 2] [--seeds 1]

Makes a Llama of two layers from a config, with the tokenizer of the embedded scorer and drawn weights, and trains it by
`odin` on OpenAssistant's and on LLaMA-Factory's pairs, with two heads and with one (an ordinary reward model), by the
same seed on the same pairs. A third of the pairs is seen by neither training: of these are the figures, not of those by
which a training may choose its weights. Both are left with their last, or with those of --best-by.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import copy2
from typing import Any

from measuring import here, told

import tunesift
from tunesift import Odin, Preference, RewardClassifier, RewardTuner, TransformersModel, read_preferences
from tunesift.methods.odin import MeasurePairs, RewardPairs
from tunesift.methods.odin_figures import Answered, Rewarded, curve, figures
from tunesift.perform import run_recipe
from tunesift.recipe import Recipe
from tunesift.records import Score, content_digest

FILES = {"oasst": "oasst/oasst_en_dialogue_pairs.json", "preference": "preference/dpo_en_demo.json"}
LENGTH = 512


def tiny(folder: Path) -> Path:
    """A Llama of two layers of width 64, whose weights are drawn by seed 0."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    scorer = Path(tunesift.__file__).parent / "assets" / "scorer"
    said = json.loads((scorer / "config.json").read_text())
    torch.manual_seed(0)
    names = ("vocab_size", "bos_token_id", "eos_token_id")
    shape = LlamaConfig(**{name: said[name] for name in names}, hidden_size=64, intermediate_size=128,
                        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
                        max_position_embeddings=LENGTH)  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(folder)
    for path in scorer.glob("*token*.json"):
        copy2(path, folder)
    return folder


def sides(pairs: Sequence[Preference]) -> tuple[list[Preference], list[Preference]]:
    """Pairs that are trained on, and a third that is not, by the digests of their ids."""
    tested = {pair.id for pair in sorted(pairs, key=lambda pair: content_digest(pair.id))[: len(pairs) // 3]}
    return [p for p in pairs if p.id not in tested], [p for p in pairs if p.id in tested]


def written(pairs: Sequence[Preference], path: Path) -> Path:
    """The pairs as a file."""
    rows = [{"id": p.id, "prompt": [{"role": m.role, "content": m.text} for m in p.prompt],
             "chosen": [{"role": "assistant", "content": p.chosen.text}],
             "rejected": [{"role": "assistant", "content": p.rejected.text}]} for p in pairs]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tested(model: Path, student: Path, pairs: Sequence[Preference], name: str) -> dict[str, Any]:  # Any: numbers
    """The figures of a model over pairs that it has not seen, and its curve."""
    measure = MeasurePairs(student=TransformersModel(name=str(student)), template="alpaca", most=LENGTH)
    fit = [(pair, score) for pair, score in zip(pairs, measure(pairs), strict=True)
           if isinstance(score, Score) and score.value is not None]  # fmt: skip
    asked = RewardPairs(model=RewardClassifier(name=str(model), template="alpaca", max_length=LENGTH))
    rewards = asked([pair for pair, _ in fit])
    both = [
        tuple(Answered(found.parts[side], int(score.parts[side])) for side in ("chosen", "rejected"))
        for (_, score), found in zip(fit, rewards, strict=True) if isinstance(found, Score)
    ]  # fmt: skip
    found = Rewarded(tuple(both), {})  # type: ignore[arg-type]
    return {**figures(name, found), "curve": [[round(float(str(row[k])), 2) for k in ("tokens", "reward")]
                                              for row in curve(name, found)]}  # fmt: skip


def trial(data: Path, place: Path, given: argparse.Namespace) -> list[dict[str, Any]]:  # Any: numbers
    """Both trainings on one file, seed by seed."""
    student = place / "tiny"
    every = list(read_preferences(data))
    trained, kept = sides(every[:60] if given.smoke else every)
    path = written(trained, place / "train.jsonl")
    rows = []
    for seed in range(given.seeds):
        for heads, name in ((1, "one head"), (2, "ODIN")):
            tuner = RewardTuner(template="alpaca", heads=heads, epochs=given.epochs, batch=16, device_batch=16,
                                learning_rate=given.learning_rate, held_out=0.2, seed=seed, best_by=given.best_by,
                                gradient_checkpointing=False)  # fmt: skip
            output = place / f"{heads}-{seed}"
            method = Odin(student=TransformersModel(name=str(student)), tuner=tuner)
            done = run_recipe(Recipe(method=method, input=path, output=output))
            count = done.reasons.get("kept: trained on")
            rows.append({"seed": seed, "trained on": count, "seconds": round(done.seconds),
                         **tested(output, student, kept, name)})  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds oasst and preference")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--best-by", default="last", choices=("accuracy", "balanced", "last"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--smoke", action="store_true", help="a few pairs of one file and one epoch, to see that it runs"
    )
    given = parser.parse_args()
    if given.smoke:
        given.epochs, given.seeds = 1.0, 1
    began = time.monotonic()
    trials: Mapping[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        for name, file in list(FILES.items())[: 1 if given.smoke else None]:
            place = Path(home) / name
            place.mkdir()
            tiny(place / "tiny")
            trials = {**trials, name: trial(given.data / file, place, given)}
    settings = {
        "epochs": given.epochs,
        "learning_rate": given.learning_rate,
        "best_by": given.best_by,
        "batch": 16,
        "max_length": LENGTH,
    }
    result = {**here(), "settings": settings, "trials": trials, "minutes": round((time.monotonic() - began) / 60, 1)}
    told(result, "reward_length", given.smoke)


if __name__ == "__main__":
    main()
