"""What may a run spend, and what does each model cost?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tunesift.errors import RecipeError, shown
from tunesift.settings import INCIDENTAL, Json, Settings
from tunesift.yaml_text import read_yaml


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in millionths of the currency for each token."""

    prompt: float
    completion: float

    def micros(self, prompt: int, completion: int) -> int:
        """Cost in millionths of the currency, rounded up."""
        return math.ceil(prompt * self.prompt + completion * self.completion)


@dataclass(frozen=True, slots=True)
class Caps:
    """What a run may spend at most; None for no limit."""

    micros: int | None = None
    tokens: int | None = None
    calls: int | None = None


@dataclass(frozen=True, kw_only=True)
class Budget(Settings):
    """What a run may spend on endpoints; nothing here changes a result."""

    max_cost: Annotated[float | None, INCIDENTAL] = None
    """Most money, in the currency of the prices; None for no limit."""
    max_tokens: Annotated[int | None, INCIDENTAL] = None
    """Most tokens, of prompts and answers together; None for no limit."""
    max_calls: Annotated[int | None, INCIDENTAL] = None
    """Most requests; None for no limit."""
    prices: Annotated[Path | None, INCIDENTAL] = None
    """YAML file of what models cost: under a model's name `input` and `output`, for a million tokens of each."""
    ask_above: Annotated[float, INCIDENTAL] = 1.0
    """Money from which the command line asks before it begins, where no cap is given."""

    def __post_init__(self) -> None:
        for name in ("max_cost", "max_tokens", "max_calls"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise RecipeError(f"budget.{name}: {value:g} allows nothing; write a number above 0.")

    @property
    def caps(self) -> Caps:
        """The limits in the units of the ledger."""
        micros = None if self.max_cost is None else int(self.max_cost * 1_000_000)
        return Caps(micros, self.max_tokens, self.max_calls)

    def price_table(self, models: set[str]) -> dict[str, Price]:
        """Prices of the models that have one; raises `RecipeError` where a cap on money needs one that is missing."""
        table = read_prices(self.prices) if self.prices else {}
        if self.max_cost is not None and (missing := sorted(models - set(table))):
            place = f" in {self.prices}; add it" if self.prices else "; name a file of prices with --prices"
            raise RecipeError(f'budget.max_cost: "{shown(missing[0])}" has no price{place}, or limit tokens with '
                              "--max-tokens instead.")  # fmt: skip
        return {name: price for name, price in table.items() if name in models}


def read_prices(path: Path) -> dict[str, Price]:
    """A price table; raises `RecipeError` for one that is not what it should be."""
    table = read_yaml(path)
    if not isinstance(table, Mapping):
        raise RecipeError(f"{path}: a price table has models' names, and `input` and `output` under each.")
    return {name: _price(path, name, said) for name, said in table.items()}


def _price(path: Path, name: str, said: Json) -> Price:
    sides = ("input", "output")
    if not isinstance(said, dict) or set(said) != set(sides) or not all(_is_price(said[side]) for side in sides):
        raise RecipeError(f"{path}: {shown(name)} needs `input` and `output`, numbers of 0 or more for a million "
                          "tokens each, and nothing else.")  # fmt: skip
    prompt, completion = (float(str(said[side])) for side in sides)
    return Price(prompt, completion)


def _is_price(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
