"""How the scores of many answers become the one number of a benchmark."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from omrlang.types.setting import Frozen, Setting


class Worst(Frozen):
    """A problem counts what its worst variant does, as DynaMath reports it (arXiv 2411.00836, section 3.3). Rows are
    variants of one problem where they agree in the column; a row without a value there is a problem of its own."""

    kind: Literal["worst"] = "worst"
    by: Annotated[
        Literal["variant"], Setting("the column whose equal values are one problem", cls="rows")
    ]


Aggregate: TypeAlias = Worst | Literal["mean", "majority"]
"""``mean`` is over all answers (avg@k where there are k for each question), ``majority`` over questions: each counts what
the answer that most of its k agree in does (maj@k; self-consistency, arXiv 2203.11171)."""
