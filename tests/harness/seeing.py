"""A tiny random model that reads images, and images and pairs for it."""

from __future__ import annotations

import base64
import io
import json
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

from harness.training import Heard
from tunesift import Dataset, Message, Preference, Record, VisionModel
from tunesift.running.step import Checkpoint
from tunesift.running.training import MODEL
from tunesift.tuning.base import Training
from tunesift.tuning.process import Trained, told
from tunesift.tuning.trainer import Job, train
from tunesift.tuning.vision_dpo_trainer import VisionDPOLearner

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}{% endfor %}"
    "{% if m['role'] == 'assistant' %}</s>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PATCHES = 4
"""Tokens of an image: 28 pixels in patches of 14, both ways."""


def llava(home: Path, seed: int = 0, length: int = 4096) -> Path:
    """The folder of a LLaVA: a tower of 28 pixels and a Llama, two layers of width 32 each, with a byte-level tokenizer."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    home.mkdir(parents=True, exist_ok=True)
    special = ["<s>", "</s>", "<pad>", "<image>"]
    words = {c: n for n, c in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        eye = transformers.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = transformers.LlavaProcessor(
        eye,
        fast,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    processor.save_pretrained(home)
    torch.manual_seed(seed)
    sees = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14,
        projection_dim=32,
    )  # fmt: skip
    speaks = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=length, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        initializer_range=0.3, tie_word_embeddings=False,
    )  # fmt: skip
    shape = transformers.LlavaConfig(
        vision_config=sees, text_config=speaks, image_token_index=3, image_token_id=3, image_seq_length=PATCHES,
        vision_feature_layer=-1,
    )  # fmt: skip
    transformers.LlavaForConditionalGeneration(shape).save_pretrained(home)
    return home


def picture_file(path: Path, colour: tuple[int, int, int] = (200, 40, 40), size: tuple[int, int] = (40, 30)) -> Path:
    """An image of one colour."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def embedded(colour: tuple[int, int, int] = (200, 40, 40)) -> str:
    """An image as a row itself may hold it."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (9, 9), colour).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def png_of(side: int) -> bytes:
    """A PNG file that says how large it is, and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


def asked(id: str, image: str, question: str = "What is it?", answer: str = "A red thing.") -> Record:
    """A question about an image, and its answer."""
    return Record(id, (Message("user", question, (image,)), Message("assistant", answer)))


def pair(id: str, image: str, chosen: str = "A red thing.", rejected: str = "A dog and a cat.") -> Preference:
    """Two answers to a question about an image."""
    prompt = (Message("user", "What is it?", (image,)),)
    return Preference(id, prompt, Message("assistant", chosen), Message("assistant", rejected))


def pictured(home: Path, count: int) -> list[str]:
    """So many images of different colours in a folder: their names."""
    return [picture_file(home / f"{n}.png", (37 * n % 256, 91 * n % 256, 153 * n % 256)).name for n in range(count)]


def job(place: Path, student: VisionModel, tuner: Training, data: Dataset[Any]) -> Job:  # Any: of what it reads
    """A training into a folder."""
    place.mkdir(exist_ok=True)
    return Job(student, tuner, data, place)


def trained(given: Job) -> Trained:
    """What it comes to, without a process of its own."""
    with warnings.catch_warnings():  # what TRL, PEFT and transformers say to one another is theirs
        for kind in (FutureWarning, DeprecationWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        train(given, VisionDPOLearner(), Heard())
    return told(Checkpoint(given.into / MODEL, ""))


def rows(records: list[Record]) -> str:
    """Records as JSON Lines of messages."""
    lines = []
    for record in records:
        images = [image for message in record.messages for image in message.images]
        turns = [{"role": m.role, "content": "<image>" * len(m.images) + m.text} for m in record.messages]
        lines.append(json.dumps({"id": record.id, "messages": turns, **({"images": images} if images else {})}))
    return "".join(line + "\n" for line in lines)
