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


class Chains(Frozen):
    """A chain of steps counts as We-Math counts it (arXiv 2407.01284, section 3.2): rows with the same `by` are one chain, whose
    row with `extra.step` = `whole` asks for all of it and the others for a step each. All right is 1; every step but not the
    whole is 1/2; the whole with only some of its steps is 1 where `loose`, else 0; anything else is 0. A question asked several
    times is right where more than half of its answers are."""

    kind: Literal["chains"] = "chains"
    by: Annotated[
        Literal["variant"], Setting("the column whose equal values are one chain", cls="rows")
    ]
    whole: Annotated[
        str, Setting("what `extra.step` holds where the whole chain is asked for", cls="rows")
    ]
    loose: Annotated[
        bool, Setting("whether some of the steps are enough where the whole is right", cls="rows")
    ] = True


Aggregate: TypeAlias = Worst | Chains | Literal["mean", "majority"]
"""``mean`` is over all answers (avg@k where there are k for each question), ``majority`` over questions: each counts what
the answer that most of its k agree in does (maj@k; self-consistency, arXiv 2203.11171)."""
