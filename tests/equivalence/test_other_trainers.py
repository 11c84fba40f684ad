"""Exports as LLaMA-Factory's and axolotl's own code reads them: the same tokens, and the same ones trained on.

Neither is among the test tools. To run this: `pip install --no-deps llamafactory axolotl omegaconf addict colorama
antlr4-python3-runtime==4.9.3 torchaudio`, and for axolotl's pairs `posthog backoff distro requests urllib3 certifi
charset_normalizer idna numba llvmlite` besides, which its modules import; the last look was at axolotl 0.19.0.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesift import read_dataset, read_preferences, recipe_for, run_recipe
from tunesift.export import export
from tunesift.models.folders import EMBEDDED, local_folder, tokenizer
from tunesift.models.turns import Encoded, Encoder
from tunesift.prompts import Template
from tunesift.tuning.encoding import EncodedPair, PairEncoder

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TALKS = [
    [("system", "Be brief."), ("user", "Why?"), ("assistant", "Because.")],
    [("user", "Why do leaves fall?"), ("assistant", "Abscission.")],
    [("user", "One?"), ("assistant", "1."), ("user", "Two?"), ("assistant", "2 – zwei.\n\n# and more")],
    [("user", "{content} and {{content}}?"), ("assistant", "'Yes' \\ \"no\"")],
]
WORDS = [f"student.name={local_folder(EMBEDDED)}"]
SETTINGS = [(), ("tuner.held_out=0.4", "tuner.lora.rank=2"), ("tuner.packing=true", "tuner.steps=3"),
            ("tuner.precision=float32", "tuner.lora.targets=[q_proj]", "student.revision=abc")]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a selection that kept four conversations."""
    rows = [{"id": f"r{n}", "messages": [{"role": role, "content": text} for role, text in talk]}
            for n, talk in enumerate(TALKS)]  # fmt: skip
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = ["scorer.student.kind=scripted", "keep=100%", "keep.below=null"]
    return run_recipe(recipe_for("select", tmp_path / "talks.jsonl", tmp_path / "kept.jsonl", said)).folder


def trained_on(run: Path, template: Template) -> dict[str, tuple[list[int], list[int]]]:
    """By id, the tokens that `tune` trains on, and their labels."""
    encode = Encoder(tokenizer(EMBEDDED), template)
    found = {}
    for record in read_dataset(run.with_suffix("")):
        ours = encode(record)
        assert isinstance(ours, Encoded)
        found[record.id] = list(ours.ids), [-100] * ours.start + list(ours.ids[ours.start :])
    return found


def parsed(folder: Path) -> Any:
    """LLaMA-Factory's own arguments of a file; those that are transformers' are known by their names."""
    import transformers
    from llamafactory.hparams.data_args import DataArguments
    from llamafactory.hparams.finetuning_args import FinetuningArguments
    from llamafactory.hparams.model_args import ModelArguments

    kinds = (DataArguments, FinetuningArguments, ModelArguments)
    own = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    written = yaml.safe_load((folder / "train.yaml").read_text())
    others = {field.name for field in dataclasses.fields(transformers.Seq2SeqTrainingArguments)}
    assert written.keys() <= own | others
    return transformers.HfArgumentParser(kinds).parse_dict({k: v for k, v in written.items() if k in own})[0]


@pytest.mark.parametrize("more", SETTINGS)
@pytest.mark.parametrize("template", ["chat", "alpaca"])
def test_llama_factory_reads_the_tokens_that_tune_trains_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: Template, more: tuple[str, ...]
) -> None:
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    pytest.importorskip("llamafactory.data", reason="LLaMA-Factory is not among the test tools")
    from datasets import load_dataset
    from llamafactory.data.converter import align_dataset
    from llamafactory.data.parser import get_dataset_list
    from llamafactory.data.processor.supervised import SupervisedDatasetProcessor
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from transformers import AutoTokenizer

    done = export(run, tmp_path / "out", "llama-factory", [*WORDS, f"tuner.template={template}", *more])
    monkeypatch.chdir(done.folder)
    arguments, found = parsed(done.folder), {}
    reads = AutoTokenizer.from_pretrained(local_folder(EMBEDDED))
    process = SupervisedDatasetProcessor(get_template_and_fix_tokenizer(reads, arguments), reads, None, arguments)
    names = [*arguments.dataset, *(arguments.eval_dataset or [])]
    for attribute in get_dataset_list(names, arguments.dataset_dir):
        rows = load_dataset("json", data_files=attribute.dataset_name, cache_dir=str(tmp_path / "cache"))["train"]
        training = type("Training", (), {"local_process_index": 0, "should_log": False})()
        made = process.preprocess_dataset(align_dataset(rows, attribute, arguments, training)[:])
        found |= dict(zip(rows["id"], zip(made["input_ids"], made["labels"], strict=True), strict=True))
    assert found == trained_on(run, template)


@pytest.mark.parametrize("more", SETTINGS)
@pytest.mark.parametrize("template", ["chat", "alpaca"])
def test_axolotl_takes_every_setting_and_reads_the_tokens_that_tune_trains_on(
    run: Path, tmp_path: Path, template: Template, more: tuple[str, ...]
) -> None:
    pytest.importorskip("axolotl.prompt_strategies.chat_template", reason="axolotl is not among the test tools")
    from axolotl.prompt_strategies import chat_template, input_output
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.schemas.config import AxolotlInputConfig
    from axolotl.utils.schemas.datasets import SFTDataset
    from transformers import AutoTokenizer

    done = export(run, tmp_path / "out", "axolotl", [*WORDS, f"tuner.template={template}", *more])
    written = yaml.safe_load((done.folder / "config.yaml").read_text())
    fields = AxolotlInputConfig.model_fields
    assert written.keys() <= fields.keys() | {field.alias for field in fields.values()}
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        checked = AxolotlInputConfig(**written).model_dump(exclude_none=True)
    found = {}
    for data in checked["datasets"] + checked.get("test_datasets", []):
        assert data.keys() <= SFTDataset.model_fields.keys()
        reads, config = AutoTokenizer.from_pretrained(local_folder(EMBEDDED)), DictDefault(checked)
        reader = chat_template.load(reads, config, data) if template == "chat" else input_output.load(reads, config)
        for line in (done.folder / data["path"]).read_text().splitlines():
            row = json.loads(line)
            made = reader.tokenize_prompt({name: value for name, value in row.items() if name != "id"})
            found[row["id"]] = made["input_ids"], made["labels"]
    assert found == trained_on(run, template)


PAIRS = [
    [("system", "Be brief."), ("user", "Why?"), ("assistant", "Because."), ("assistant", "I do not know.")],
    [("user", "Letter?"), ("assistant", "a"), ("assistant", "user")],
    [("user", "One?"), ("assistant", "1."), ("user", "Two?"), ("assistant", "2 – zwei.\n\n# and more"), ("assistant", " 3")],
    [("user", "{content} and {{content}}?"), ("assistant", "'Yes' \\ \"no\""), ("assistant", "{prompt}")],
]  # fmt: skip
"""Prompts with two answers each; short ones are found in what a template puts before an answer."""
PAIR_SETTINGS = [(), ("tuner.held_out=0.4", "tuner.lora.rank=2"), ("tuner.optimiser=rmsprop", "tuner.steps=3")]


@pytest.fixture
def run_of_pairs(tmp_path: Path) -> Path:
    """The folder of a selection that kept four preference pairs."""
    rows = []
    for n, talk in enumerate(PAIRS):
        *prompt, chosen, rejected = [{"role": role, "content": text} for role, text in talk]
        rows.append({"id": f"p{n}", "prompt": prompt, "chosen": [chosen], "rejected": [rejected]})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = ["scorer.student.kind=scripted", "keep=100%", "keep.below=null"]
    return run_recipe(recipe_for("select", tmp_path / "pairs.jsonl", tmp_path / "kept.jsonl", said)).folder


Sides = tuple[list[int], list[int], list[int]]


def preferred(run: Path, template: Template) -> dict[str, Sides]:
    """By id, the tokens of prompt, chosen and rejected answer that `tune` trains on."""
    encode, found = PairEncoder(tokenizer(EMBEDDED), template), {}
    for pair in read_preferences(run.with_suffix("")):
        ours = encode(pair)
        assert isinstance(ours, EncodedPair)
        found[pair.id] = list(ours.prompt), list(ours.chosen), list(ours.rejected)
    return found


def prepared_by_trl(rows: Any, args: Any) -> dict[str, Sides]:
    """By id, the tokens that TRL's own trainer makes of rows."""
    from trl import DPOTrainer

    trainer = DPOTrainer(model=str(local_folder(EMBEDDED)), args=args, train_dataset=rows)
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return {row["id"]: tuple(list(row[name]) for name in names) for row in trainer.train_dataset}  # type: ignore[misc]


@pytest.mark.parametrize("more", PAIR_SETTINGS)
@pytest.mark.parametrize("template", ["chat", "alpaca"])
def test_llama_factory_reads_the_pairs_that_tune_trains_on(
    run_of_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: Template, more: tuple[str, ...]
) -> None:
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    pytest.importorskip("llamafactory.data", reason="LLaMA-Factory is not among the test tools")
    from datasets import load_dataset
    from llamafactory.data.converter import align_dataset
    from llamafactory.data.parser import get_dataset_list
    from llamafactory.data.processor.pairwise import PairwiseDatasetProcessor
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from transformers import AutoTokenizer

    words = [*WORDS, "tuner.kind=dpo", f"tuner.template={template}", *more]
    done = export(run_of_pairs, tmp_path / "out", "llama-factory", words)
    monkeypatch.chdir(done.folder)
    arguments, found = parsed(done.folder), {}
    reads = AutoTokenizer.from_pretrained(local_folder(EMBEDDED))
    process = PairwiseDatasetProcessor(get_template_and_fix_tokenizer(reads, arguments), reads, None, arguments)
    for attribute in get_dataset_list([*arguments.dataset, *(arguments.eval_dataset or [])], arguments.dataset_dir):
        assert attribute.ranking
        rows = load_dataset("json", data_files=attribute.dataset_name, cache_dir=str(tmp_path / "cache"))["train"]
        training = type("Training", (), {"local_process_index": 0, "should_log": False})()
        made = process.preprocess_dataset(align_dataset(rows, attribute, arguments, training)[:])
        for n, id in enumerate(rows["id"]):
            sides = []
            for side in ("chosen", "rejected"):
                ids, labels = made[f"{side}_input_ids"][n], made[f"{side}_labels"][n]
                start = next(place for place, label in enumerate(labels) if label != -100)
                assert labels[start:] == ids[start:]
                sides += [ids[:start], ids[start:]]
            assert sides[0] == sides[2]
            found[id] = sides[0], sides[1], sides[3]
    assert found == preferred(run_of_pairs, template)


@pytest.mark.parametrize("more", PAIR_SETTINGS)
@pytest.mark.parametrize("template", ["chat", "alpaca"])
def test_axolotl_takes_every_setting_and_hands_trl_the_pairs_that_tune_trains_on(
    run_of_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: Template, more: tuple[str, ...]
) -> None:
    pytest.importorskip("axolotl.utils.data.rl", reason="axolotl is not among the test tools")
    from axolotl.utils.data.rl import _load_split
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.schemas.config import AxolotlInputConfig
    from trl import DPOConfig

    words = [*WORDS, "tuner.kind=dpo", f"tuner.template={template}", *more]
    done = export(run_of_pairs, tmp_path / "out", "axolotl", words)
    written = yaml.safe_load((done.folder / "config.yaml").read_text())
    fields = AxolotlInputConfig.model_fields
    assert written.keys() <= fields.keys() | {field.alias for field in fields.values()}
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        checked = DictDefault(AxolotlInputConfig(**written).model_dump(exclude_none=True))
    assert (checked["rl"], checked["rl_beta"]) == ("dpo", 0.1)
    monkeypatch.chdir(done.folder)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    checked["tokenizer_config"] = checked["base_model"]
    found: dict[str, Sides] = {}
    for split in ("train", "test") if checked.get("test_datasets") else ("train",):
        rows = _load_split(checked, split=split)
        args = DPOConfig(output_dir=str(tmp_path / "trained"), use_cpu=True, max_length=checked["sequence_len"])
        found |= prepared_by_trl(rows, args)
    assert found == preferred(run_of_pairs, template)


@pytest.mark.parametrize("template", ["chat", "alpaca"])
def test_trl_takes_every_setting_of_dpo_and_updates_on_the_pairs_that_tune_trains_on(
    run_of_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: Template
) -> None:
    """TRL's own parser, its own reading of the files, and one update of the embedded scorer."""
    pytest.importorskip("trl", reason='needs the "train" extra')
    from datasets import load_dataset
    from trl import DPOTrainer, get_peft_config
    from trl.scripts.dpo import make_parser

    words = [*WORDS, "tuner.kind=dpo", f"tuner.template={template}", "tuner.steps=1", "tuner.batch=2", "tuner.beta=0.3",
             "tuner.held_out=0.4", "tuner.lora.rank=2", "tuner.optimiser=rmsprop", "tuner.precision=float32"]  # fmt: skip
    done = export(run_of_pairs, tmp_path / "out", "trl", words)
    monkeypatch.chdir(done.folder)
    script, args, model, _ = make_parser().parse_args_and_config(
        ["--config", done.settings], fail_with_unknown_args=True
    )
    assert (args.beta, args.loss_type, str(args.optim)) == (0.3, ["sigmoid"], "OptimizerNames.RMSPROP")
    data = load_dataset(script.dataset_name, cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in data.items()} == {"train": 3, "test": 1}
    args.use_cpu = True
    trainer = DPOTrainer(
        model=model.model_name_or_path,
        args=args,
        train_dataset=data[script.dataset_train_split],
        eval_dataset=data[script.dataset_test_split],
        peft_config=get_peft_config(model),
    )
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    rows = [row for part in (trainer.train_dataset, trainer.eval_dataset) for row in part]
    found = {row["id"]: tuple(list(row[name]) for name in names) for row in rows}
    assert found == preferred(run_of_pairs, template)
    trainer.train()
    assert trainer.state.global_step == 1
