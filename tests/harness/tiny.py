"""Tiny random models that are made on the spot, laid out as their authors would: an encoder, a classifier."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

MakeTiny = Callable[..., Path]
"""The fixture `make_tiny`: a folder with a tiny random language model."""


def classifier(home: Path, words: Sequence[str], seed: int = 0) -> Path:
    """A classifier of natural language inference, whose contradiction comes last."""
    import torch
    import transformers

    (home / "vocab.txt").write_text("\n".join(words) + "\n")
    transformers.BertTokenizerFast(str(home / "vocab.txt")).save_pretrained(home)
    torch.manual_seed(seed)
    shape = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32, num_labels=3, initializer_range=1.0,
        id2label={0: "ENTAILMENT", 1: "NEUTRAL", 2: "CONTRADICTION"},
    )  # fmt: skip
    transformers.BertForSequenceClassification(shape).save_pretrained(home)
    return home


def encoder(home: Path, words: Sequence[str], most: int, seed: int = 0) -> Path:
    """A sentence encoder that reads so many tokens: a BERT, the mean over its tokens, length 1."""
    import torch
    import transformers

    torch.manual_seed(seed)
    shape = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    transformers.BertModel(shape).save_pretrained(home)
    (home / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(home / "vocab.txt")).save_pretrained(home)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    for folder in ("1_Pooling", "2_Normalize"):
        (home / folder).mkdir()
    layout = {
        "modules.json": [{"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
                         for n, (kind, path) in enumerate(modules)],
        "sentence_bert_config.json": {"max_seq_length": most, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True},
    }  # fmt: skip
    for name, said in layout.items():
        (home / name).write_text(json.dumps(said))
    return home
