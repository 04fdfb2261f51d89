"""The seven stage kinds, each declared once in the file of its name."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from omrlang.schema.eval import Eval
from omrlang.schema.filter import Filter
from omrlang.schema.mix import Mix
from omrlang.schema.rl import Rl
from omrlang.schema.sample import Sample
from omrlang.schema.sft import Sft
from omrlang.schema.source import Source

Spec: TypeAlias = Annotated[
    Source | Mix | Sample | Filter | Sft | Rl | Eval, Field(discriminator="kind")
]

KINDS: dict[str, type[Source | Mix | Sample | Filter | Sft | Rl | Eval]] = {
    "source": Source,
    "mix": Mix,
    "sample": Sample,
    "filter": Filter,
    "sft": Sft,
    "rl": Rl,
    "eval": Eval,
}

__all__ = ["KINDS", "Eval", "Filter", "Mix", "Rl", "Sample", "Sft", "Source", "Spec"]
