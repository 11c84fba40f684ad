"""Put a trained scorer into the package: float16 safetensors, tokenizer, configuration.

python export.py --build build --into ../../src/tunesift/assets/scorer
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

LIMIT = 20 * 2**20
"""Bytes that the scorer may take in the package."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=Path("build"))
    parser.add_argument("--into", type=Path, required=True)
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    state = load_file(options.build / "model" / "state.safetensors")
    weights = {n: t.to(torch.float16).contiguous() for n, t in state.items() if not n.startswith("optimizer.")}
    save_file(weights, options.into / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((options.build / "model" / "config.json").read_text())
    config |= {"architectures": ["LlamaForCausalLM"], "dtype": "float16", "use_cache": True}
    (options.into / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(options.build / "tokenizer" / name, options.into / name)
    for path in options.into.iterdir():
        path.chmod(0o644)
    size = sum(p.stat().st_size for p in options.into.iterdir() if p.name != "MODEL_CARD.md")
    if size > LIMIT:
        raise SystemExit(f"{options.into}: {size} bytes, more than the {LIMIT} a package may carry")
    print(json.dumps({"bytes": size, "parameters": sum(t.numel() for t in weights.values())}))


if __name__ == "__main__":
    main()
