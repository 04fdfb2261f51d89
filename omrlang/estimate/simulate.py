"""A number and its ranges to what it comes to in so many of a hundred cases, by drawing what it was made of.

A sum of ranges adds up the worst of everything. Here each input is drawn once and goes into all that was made of it, so
what two stages share moves both and what is independent evens out. An assumption of equal text and range (the utilisation
of supervised training, characters a token) is one draw wherever it stands. A drawn input lies below its middle as often
as above, evenly between the middle and either end. Nothing hangs on chance: draws are permutations of equal steps, each
by the hash of its input's name.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

from omrlang.plan import Estimate, Money

DRAWS = 500


def percentile(number: Estimate | Money, *shares: float, seed: int = 0) -> tuple[float, ...]:
    """The values that are not exceeded in these shares of cases; none where the number is unknown.

    >>> flat = Estimate(lo=0, mid=10, hi=20, unit="", origin="assumed", formula="a guess")
    >>> [round(value) for value in percentile(flat, 0.5, 0.9)]
    [10, 18]
    """
    if number.mid is None:
        return ()
    drawn = sorted(_cases(number, seed))
    return tuple(drawn[round(share * (len(drawn) - 1))] for share in shares)


def _cases(number: Estimate | Money, seed: int) -> list[float]:
    """The number's value in each case."""
    cases: dict[int, list[float] | float] = {}
    for position, node in enumerate(_inputs_first(number)):
        made = node.made
        if made.rule is None or not made.parts:
            cases[id(node)] = _leaf(node, position, seed)
            continue
        inputs = {name: cases[id(part)] for name, part in made.parts.items()}
        if not any(isinstance(value, list) for value in inputs.values()):
            cases[id(node)] = made.rule(**inputs)
            continue
        columns = {
            name: value if isinstance(value, list) else [value] * DRAWS
            for name, value in inputs.items()
        }
        cases[id(node)] = [
            made.rule(**dict(zip(columns, row, strict=True)))
            for row in zip(*columns.values(), strict=True)
        ]
    found = cases[id(number)]
    return found if isinstance(found, list) else [found]


def _inputs_first(number: Estimate | Money) -> Iterator[Estimate | Money]:
    """All that the number was made of, each after its own inputs, the number last. No recursion: a recipe may be long."""
    done: set[int] = set()
    waiting: list[tuple[Estimate | Money, bool]] = [(number, False)]
    while waiting:
        node, ready = waiting.pop()
        if id(node) in done:
            continue
        if ready:
            done.add(id(node))
            yield node
            continue
        waiting.append((node, True))
        waiting += [(part, False) for part in node.made.parts.values()]


def _leaf(node: Estimate | Money, position: int, seed: int) -> list[float] | float:
    """Equal steps of the range in an order of the input's own."""
    if node.lo is None or node.mid is None or node.hi is None:
        raise ValueError(f"{node.formula}: unknown")
    lo, mid, hi = float(node.lo), float(node.mid), float(node.hi)
    if lo == hi:
        return mid
    shared = node.origin in ("assumed", "calibrated")
    name = f"{node.formula}|{node.unit}|{lo}|{mid}|{hi}|{'' if shared else position}|{seed}"
    order = list(range(DRAWS))
    random.Random(hashlib.sha256(name.encode()).digest()).shuffle(order)
    return [_between(lo, mid, hi, (step + 0.5) / DRAWS) for step in order]


def _between(lo: float, mid: float, hi: float, share: float) -> float:
    if share < 0.5:
        return lo + (mid - lo) * 2 * share
    return mid + (hi - mid) * (2 * share - 1)
