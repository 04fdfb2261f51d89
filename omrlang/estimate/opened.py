"""A plan to all its numbers by name, and a number to what it was made of, to any depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from omrlang.plan import Asked, Estimate, Input, Money, Plan, PlanStage, Totals

Number: TypeAlias = Estimate | Money


def numbers(plan: Plan) -> dict[str, Number]:
    """Every number of a plan as ``STAGE.METRIC``, its sums as ``total.METRIC``."""
    found = {f"{s.name}.{name}": item for s in plan.stages for name, item in metrics(s).items()}
    return found | {f"total.{name}": getattr(plan.totals, name) for name in SUMS}


SUMS = tuple(name for name in Totals.model_fields if name != "not_estimated")


def metrics(stage: PlanStage) -> dict[str, Number]:
    """``rows``, ``tokens``, ``seconds``, ``usd``, ``memory.logits``, ``steps``, …: what a plan says of the stage."""
    costs = stage.costs
    if costs is None:
        return {}
    found: dict[str, Number] = {
        "rows_in": costs.rows_in,
        "rows": costs.rows_out,
        "tokens": costs.tokens,
        "seconds": costs.seconds,
        "gpu_hours": costs.gpu_hours,
        "usd": costs.usd,
        **costs.extra,
    }
    found |= {f"rows.{name}": item for name, item in costs.rows_by_source.items()}
    found |= {f"asked.{name}": item for name, item in _asked(costs.asked)}
    if costs.memory is not None:
        found["memory"] = costs.memory.total
        found |= {f"memory.{name}": item for name, item in costs.memory.parts.items()}
    return found


def _asked(rules: tuple[Asked, ...]) -> Iterator[tuple[str, Estimate]]:
    for rule in rules:
        yield rule.what, rule.times
        yield from _asked(rule.parts)


@dataclass(frozen=True, slots=True)
class Opened:
    """One input at its depth below the number that was asked for, 1 for its own inputs. ``known_as`` is the input's name
    among the plan's numbers; ``again`` says that it was opened further up."""

    depth: int
    name: str
    number: Number | Input
    known_as: str | None
    again: bool


def opened(number: Number, known: Mapping[str, Number], deep: bool) -> Iterator[Opened]:
    """What a number was made of: its inputs, and with ``deep`` theirs, each number once.

    A number of a plan that was read from a file has one level.
    """
    names = {_identity(item): name for name, item in reversed(list(known.items()))}
    seen = {_identity(number)}
    waiting = [(1, name, item) for name, item in reversed(list(_inputs(number).items()))]
    while waiting:
        depth, name, item = waiting.pop()
        mark = _identity(item)
        again = mark in seen and bool(_inputs(item))
        yield Opened(depth, name, item, names.get(mark), again and deep)
        if deep and mark not in seen:
            waiting += [(depth + 1, *part) for part in reversed(list(_inputs(item).items()))]
        seen.add(mark)


def _inputs(number: Number | Input) -> Mapping[str, Number | Input]:
    if isinstance(number, Input):
        return {}
    return number.made.parts or {item.name: item for item in number.inputs}


def _identity(number: Number | Input) -> int:
    """Equal for a number and the same number in dollars and cents."""
    made = None if isinstance(number, Input) else number.made
    return id(made) if made is not None and made.rule is not None else id(number)
