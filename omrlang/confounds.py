"""Pairs of stages become what moves with the factors though nobody wrote it: epochs, steps, shares."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.factors import Pair
from omrlang.plan import Costs
from omrlang.schema import Rl, Sft
from omrlang.types import Frozen

NOTICEABLE = 0.02
"""A move under two percent is not told."""


class Move(Frozen):
    """What moves with the factors though nobody wrote it, and the setting that would hold it."""

    stage: str
    what: str
    old: str
    new: str
    why: str
    hold: str = ""


def find_moves(all_pairs: tuple[Pair, ...]) -> Iterator[Move]:
    for pair in all_pairs:
        if pair.a is None or pair.b is None or pair.a.costs is None or pair.b.costs is None:
            continue
        if isinstance(pair.b.spec, Sft | Rl):
            yield from _length_moves(pair, pair.b.spec, pair.a.costs, pair.b.costs)
        elif pair.b.spec.kind == "mix":
            yield from _share_moves(pair, pair.a.costs, pair.b.costs)


def _length_moves(pair: Pair, spec: Sft | Rl, a: Costs, b: Costs) -> Iterator[Move]:
    """Fixed steps over other rows are other epochs; fixed epochs over other rows are other steps."""
    if any(moved.path in ("steps", "epochs", "batch") for moved in pair.moved):
        return
    derived = "epochs" if spec.steps is not None else "steps"
    old, new = a.extra.get(derived), b.extra.get(derived)
    if (
        old is None
        or new is None
        or not old.mid
        or not new.mid
        or abs(new.mid / old.mid - 1) < NOTICEABLE
    ):
        return
    rows = "more" if (old.mid < new.mid) == (derived == "steps") else "fewer"
    if derived == "epochs" and spec.steps is not None:
        hold = f"{spec.name}.steps = {max(1, round(spec.steps * old.mid / new.mid)):_}"
        yield Move(
            stage=spec.name,
            what="epochs",
            old=f"{old.mid:.2g}",
            new=f"{new.mid:.2g}",
            why=f"steps are fixed and the rows hold {rows} tokens",
            hold=hold,
        )
    else:
        hold = f"{spec.name}.steps = {max(1, round(old.mid)):_} instead of epochs"
        yield Move(
            stage=spec.name,
            what="steps",
            old=f"{old.mid:,.0f}",
            new=f"{new.mid:,.0f}",
            why=f"epochs are fixed and the rows hold {rows} tokens",
            hold=hold,
        )


def _share_moves(pair: Pair, a: Costs, b: Costs) -> Iterator[Move]:
    """The source in both whose share of the mix moved most."""
    shares = [_shares(costs) for costs in (a, b)]
    both = [name for name in shares[0] if name in shares[1]]
    name = max(both, key=lambda name: abs(shares[1][name] - shares[0][name]), default=None)
    if name is None or abs(shares[1][name] - shares[0][name]) < NOTICEABLE / 2:
        return
    old, new = f"{shares[0][name]:.1%}", f"{shares[1][name]:.1%}"
    yield Move(
        stage=pair.name,
        what=f"share of {name}",
        old=old,
        new=new,
        why="amounts are not shares of a fixed total",
        hold=f"{pair.name} by shares of a `total`",
    )


def _shares(costs: Costs) -> dict[str, float]:
    counts = {name: item.mid for name, item in costs.rows_by_source.items() if item.mid is not None}
    whole = sum(counts.values())
    return (
        {name: count / whole for name, count in counts.items()}
        if whole and len(counts) == len(costs.rows_by_source)
        else {}
    )
