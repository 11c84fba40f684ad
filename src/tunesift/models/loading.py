"""How do weights come into memory? Whole, from safetensors, without code of theirs, onto a device that is there."""

from __future__ import annotations

import gc
import resource
import sys
from pathlib import Path
from typing import Any, Literal, TypeVar

from tunesift.errors import MissingExtra, ModelRefused, ModelUnavailable, first_line, shown
from tunesift.models.folders import LOADING, TOKENIZER, base_of, local_folder, nowhere, place_of

LEAST_ADDRESS_SPACE = 3 * 2**30
"""Bytes of address space below which importing the libraries or running the embedded scorer may abort the process."""

Auto = Literal["AutoModelForCausalLM", "AutoModelForSequenceClassification", "AutoModelForImageTextToText"]
"""What transformers calls the ways to read a folder."""

_WHOLE: dict[Auto, str] = {
    "AutoModelForCausalLM": "causal language model",
    "AutoModelForSequenceClassification": "classifier",
    "AutoModelForImageTextToText": "vision-language model",
}
_READERS: dict[Auto, str] = {"AutoModelForImageTextToText": "AutoProcessor"}
"""What reads a model's input, where that is more than a tokenizer."""


def load(  # Any: transformers' own classes
    auto: Auto, name: str, device: str, revision: str | None = None, dtype: str | None = None
) -> tuple[Any, Any]:
    """A model on its device, and its tokenizer, of a folder or a hub id; raises `ModelError` or `MissingExtra`. Of a
    vision-language model, what reads texts and images.

    Adapters are merged into the weights that they stand beside.
    """
    folder = local_folder(name)
    if folder and (base := base_of(folder)):
        model, reader = load(auto, base[0], device, base[1], dtype)
        whole = _merged(model, folder).eval().to(usable_device(device))
        return whole, _padded(_reader_of(folder, auto) or reader, model, auto)
    _check_room()
    try:
        import torch
        import transformers
        from safetensors import SafetensorError
    except ImportError as error:
        raise MissingExtra('local models need the "local" extra: pip install "tunesift[local]".') from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    place, where = place_of(name, revision), usable_device(device)
    # Not left open: transformers would ask on the terminal whether to run code that came with the model.
    options: dict[str, Any] = {"trust_remote_code": False} | ({"revision": revision} if revision else {})
    typed = {"dtype": getattr(torch, dtype)} if dtype else {}
    try:
        reader = getattr(transformers, _READERS.get(auto, "AutoTokenizer")).from_pretrained(place, **options)
        model, found = getattr(transformers, auto).from_pretrained(
            place, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True, **typed, **options
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise _not_loaded(name, error) from error
    odd = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if odd:  # transformers has drawn these at random
        raise ModelRefused(f'model "{shown(name)}" has no fitting weights for {odd[0]}; give a whole {_WHOLE[auto]}.')
    return model.eval().to(where), _padded(reader, model, auto)


def outline(auto: Auto, name: str, revision: str | None = None) -> Any:  # Any: transformers' own class
    """A model without weights, as its config.json has it, of adapters the one they stand beside; None where that is not
    here, or none can be built so."""
    import torch
    import transformers

    folder = local_folder(name)
    if folder and (base := base_of(folder)):
        return outline(auto, *base)
    transformers.utils.logging.set_verbosity_error()
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True, "revision": revision or "main"}
    with LOADING:
        try:
            shape = transformers.AutoConfig.from_pretrained(str(folder or name), **options)
            with torch.device("meta"):
                return getattr(transformers, auto).from_config(shape, trust_remote_code=False)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError):
            return None  # whatever it is, loading the model says it


_HELD: list[dict[Any, Any]] = []  # Any: whatever weights are known by
"""What holds loaded weights in this process."""
Cache = TypeVar("Cache", bound=dict[Any, Any])  # Any: the same


def held(cache: Cache) -> Cache:
    """A cache of weights that `put_away` empties."""
    _HELD.append(cache)
    return cache


def put_away() -> None:
    """Give back the memory of all weights that this process holds; they are loaded anew when they are next asked."""
    with LOADING:
        for cache in _HELD:
            cache.clear()
    if "torch" in sys.modules:
        import torch

        gc.collect()
        torch.cuda.empty_cache()


def _reader_of(folder: Path, auto: Auto) -> Any:  # Any: transformers' own class
    """The tokenizer that adapters come with; None for that of the model they stand beside."""
    import transformers

    if not (folder / TOKENIZER).exists():
        return None
    reader = getattr(transformers, _READERS.get(auto, "AutoTokenizer"))
    return reader.from_pretrained(str(folder), trust_remote_code=False)


def _padded(reader: Any, model: Any, auto: Auto) -> Any:  # Any: transformers' own classes
    """The tokenizer of a language model, without a token for padding that was added to it and never to the model: who
    pads takes another one then."""
    pad = reader.pad_token_id if auto == "AutoModelForCausalLM" else None
    if pad is not None and pad >= model.get_input_embeddings().num_embeddings:
        reader.pad_token = None
    return reader


def _merged(model: Any, folder: Path) -> Any:  # Any: transformers' own classes
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtra('adapters need the "train" extra: pip install "tunesift[train]".') from error
    if not (folder / "adapter_model.safetensors").exists():
        raise ModelRefused(
            f'model "{shown(str(folder))}" has no adapter_model.safetensors; convert it, other formats can run code.'
        )
    try:
        whole = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
        return whole.requires_grad_()  # PEFT froze what the adapters stood beside; it may be trained on
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelRefused(
            f'model "{shown(str(folder))}" cannot be loaded ({first_line(error)}); check its files.'
        ) from error


def usable_device(wanted: str) -> str:
    """A device that is there, by what a setting asks for; raises `ModelUnavailable` where that is not to be had."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (AssertionError, RuntimeError) as error:
        said = first_line(error)
        raise ModelUnavailable(f'device: "{wanted}" is not to be had here ({said}); write auto or cpu.') from error
    return wanted


def _check_room() -> None:
    """Refuse a limit on memory under which the libraries would end the process without a word."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY and allowed < LEAST_ADDRESS_SPACE:
        needed, may = (f"{size / 2**30:.1f} GiB" for size in (LEAST_ADDRESS_SPACE, allowed))
        raise ModelUnavailable(f"local models need {needed} of address space and may use {may}; raise ulimit -v.")


def _not_loaded(name: str, error: Exception) -> ModelUnavailable | ModelRefused:
    folder = local_folder(name)
    if folder is None:
        return nowhere(name)
    if not any(folder.glob("*.safetensors")):
        return ModelRefused(
            f'model "{shown(name)}" has no .safetensors weights; convert it, other formats can run code.'
        )
    return ModelRefused(f'model "{shown(name)}" cannot be loaded ({first_line(error)}); check its files.')
