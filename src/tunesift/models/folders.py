"""Where is a model? A folder here, the one that comes with the package, or an id that a hub knows."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import math
import struct
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import httpx2

from tunesift.errors import MissingExtra, ModelRefused, ModelUnavailable, first_line, shown
from tunesift.models.base import Span
from tunesift.models.likelihood import Segment, SpanEncoder
from tunesift.models.templates import TemplateFault
from tunesift.records import Failure

ADAPTER = "adapter_config.json"
"""The file that makes a folder one of adapters, which names the model they stand beside."""
TOKENIZER = "tokenizer_config.json"
EMBEDDED = "embedded"
"""The name of the scorer that comes with the package."""
_SAMPLED = 64 * 2**10
"""Bytes read at each of a weight file's sampled places, for its identity."""
_CALLED_AS_STORED = ("gemma", "gemma2", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
"""Architectures whose layers are called as their weights are stored; transformers renames some of others."""
LOADING = Lock()
"""Held while transformers loads something: it cannot be imported by two threads at once."""


def local_folder(name: str) -> Path | None:
    """The folder a name means; None for a hub id. Raises `ModelUnavailable` for a path that is not there."""
    if name == EMBEDDED:
        return Path(str(importlib.resources.files("tunesift") / "assets" / "scorer"))
    path = Path(name).expanduser()
    if path.is_dir():
        if not any((path / name).exists() for name in ("config.json", ADAPTER)):
            raise ModelUnavailable(f'model "{shown(name)}" is a folder without config.json; give a model\'s folder.')
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelUnavailable(f'model "{shown(name)}" is not there; give a folder with config.json or a hub id.')
    return None


def place_of(name: str, revision: str | None = None) -> str:
    """Where libraries load a model from: its folder, or its hub id; raises `ModelUnavailable` where there is none."""
    folder = local_folder(name)
    if folder is None:
        ask_hub(name, revision)
    return str(folder or name)


def tokenizer(name: str, revision: str | None = None) -> Any:  # Any: transformers' own class
    """The tokenizer of a folder or a hub id, without any weights."""
    with LOADING:
        return _tokenizer(name, revision)


@cache
def _tokenizer(name: str, revision: str | None) -> Any:  # Any: transformers' own class
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra('tokenizers need the "local" extra: pip install "tunesift[local]".') from error
    place = place_of(name, revision)
    if (base := base_of(Path(place))) and not (Path(place) / TOKENIZER).exists():
        place, revision = place_of(*base), base[1]
    options: dict[str, Any] = {"trust_remote_code": False} | ({"revision": revision} if revision else {})
    try:
        return transformers.AutoTokenizer.from_pretrained(place, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ModelRefused(f'tokenizer "{name}" cannot be loaded ({first_line(error)}).') from error


def segment_of(encode: SpanEncoder, span: Span) -> Segment | Failure:
    """Tokens of a span; a Failure where the model's chat template takes no such conversation."""
    try:
        return encode(span)
    except TemplateFault as error:
        return not_taken(error)


def not_taken(error: TemplateFault) -> Failure:
    """Two user turns in a row, or a system message: for some models that is no conversation."""
    return Failure("refused", f"the model's chat template takes no such conversation: {str(error)[:160]}")


def ask_hub(name: str, revision: str | None = None) -> None:
    """Raise `ModelUnavailable` at once where neither the local store nor a hub within reach has the model."""
    from huggingface_hub import constants

    if _stored(name, "config.json", revision) is not None:
        return
    if constants.HF_HUB_OFFLINE:
        raise nowhere(name)
    try:
        httpx2.head(constants.ENDPOINT, timeout=5.0)
    except httpx2.HTTPError as error:
        raise nowhere(name) from error


def is_here(name: str, revision: str | None = None) -> bool:
    """Whether a model is in a folder, or in the hub's store on this machine; nobody is asked, and nothing loaded."""
    if local_folder(name) is not None:
        return True
    return any(_stored(name, file, revision) is not None for file in ("config.json", TOKENIZER))


def _stored(name: str, file: str, revision: str | None) -> Path | None:
    """A file of a hub id in the hub's store on this machine; nobody is asked."""
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, file, revision=revision)
    except (ImportError, ValueError):  # without the library, or for what can be no id, there is none
        return None
    return Path(found) if isinstance(found, str) else None


def base_of(folder: Path) -> tuple[str, str | None] | None:
    """The model that a folder's adapters stand beside, and its revision; None for a folder of whole weights.

    Raises `ModelRefused` where the adapters do not say.
    """
    if not (folder / ADAPTER).exists() or (folder / "config.json").exists():
        return None
    try:
        said = json.loads((folder / ADAPTER).read_text("utf-8"))
        name, revision = said["base_model_name_or_path"], said.get("revision")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        name = None
    if not isinstance(name, str) or not name:
        raise ModelRefused(f'model "{shown(str(folder))}" holds adapters that name no model they stand beside.')
    return name, revision if isinstance(revision, str) else None


def context_of(name: str, revision: str | None = None) -> int | None:
    """Most tokens that a model reads, by its config.json; None where that is not here, or does not say."""
    said = _config_of(name, revision)
    inner = said.get("text_config", said)
    found = (inner.get(key) for key in ("max_position_embeddings", "n_positions"))
    return next((n for n in found if isinstance(n, int)), None)


def is_described(name: str, revision: str | None = None) -> bool:
    """Whether a model's config.json is here, whatever it says."""
    return bool(_config_of(name, revision))


def sees(name: str, revision: str | None = None) -> bool | None:
    """Whether a model reads images, by its config.json; None where that is not here."""
    said = _config_of(name, revision)
    return any("vision" in key or "image" in key for key in said) if said else None


def _config_of(name: str, revision: str | None) -> dict[str, Any]:  # Any: JSON
    """A model's config.json, of adapters that of the model they stand beside; empty where it cannot be read here."""
    folder = local_folder(name)
    if folder and (base := base_of(folder)):
        return _config_of(*base)
    path = folder / "config.json" if folder else _stored(name, "config.json", revision)
    try:
        said = json.loads(path.read_text("utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def parameters(name: str) -> int | None:
    """Numbers in a local model's weights, from the headers of its safetensors files; None where they are not here."""
    try:
        folder = local_folder(name)
    except ModelUnavailable:
        return None
    if folder and (base := base_of(folder)):
        return parameters(base[0])
    files = sorted(folder.glob("*.safetensors")) if folder else []
    return sum(map(_numbers, files)) or None


def matrices(name: str) -> frozenset[str] | None:
    """Last parts of the names of layers whose weights are matrices, embeddings and head among them, from the headers of
    a local model's safetensors files; None where they are not here, or its layers may be called otherwise."""
    try:
        folder = local_folder(name)
        said = json.loads((folder / "config.json").read_text("utf-8")) if folder else {}
    except (ModelUnavailable, OSError, ValueError):
        return None
    if folder is None or not isinstance(said, dict) or said.get("model_type") not in _CALLED_AS_STORED:
        return None
    shapes = [item for path in sorted(folder.glob("*.safetensors")) for item in _shapes(path).items()]
    found = (name.split(".") for name, shape in shapes if name.endswith(".weight") and len(shape) == 2)
    return frozenset(parts[-2] for parts in found) or None


def _numbers(path: Path) -> int:
    return sum(map(math.prod, _shapes(path).values()))


def _shapes(path: Path) -> dict[str, list[int]]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return {name: t["shape"] for name, t in header.items() if name != "__metadata__"}


def nowhere(name: str) -> ModelUnavailable:
    """What to say of a name that neither a folder nor the hub knows."""
    return ModelUnavailable(
        f'model "{shown(name)}" is no folder here and no hub gave it; check the name or the network.'
    )


def folder_identity(name: str, revision: str | None) -> str:
    """Digest of the content of the folder that a name means, and of what its adapters stand beside; the revision of a
    hub id."""
    folder = local_folder(name)
    if folder is None:
        return f"hub:{revision or 'main'}"
    base = base_of(folder)
    return _content(folder) if base is None else f"{_content(folder)}+{folder_identity(*base)}"


def _content(folder: Path) -> str:
    kinds = (".json", ".safetensors", ".model", ".jinja", ".txt")
    # A sentence encoder says how it pools in a folder of its own below.
    files = sorted(p for kind in kinds for p in folder.rglob(f"*{kind}") if not _hidden(p.relative_to(folder)))
    return _content_of(tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


@cache
def _content_of(files: tuple[tuple[str, int, int], ...]) -> str:
    """Small files whole; of large ones the size and 64 places, since hashing 100 GB would take minutes."""
    found = hashlib.sha256()
    for name, size, _ in files:
        found.update(f"{Path(name).name}:{size};".encode())
        with Path(name).open("rb") as file:
            step = max(_SAMPLED, size // 64)
            for place in range(0, size, step):
                file.seek(place)
                found.update(file.read(_SAMPLED))
    return found.hexdigest()[:32]
