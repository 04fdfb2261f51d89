"""A row expression and the rows that it is asked of to how often each rule, verifier and judge is expected to be asked.

A rule is asked of what the rules before it let through; the right side of ``or`` of what the left refuses, of ``and``
of what the left lets through. A known kept share is spread evenly over the rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from omrlang.estimate import assumptions
from omrlang.estimate.ranges import between, derive, derive_from
from omrlang.functions import FUNCTIONS, IN_THE_ROW, Asks
from omrlang.plan import Asked, Estimate
from omrlang.types import Binary, Call, ExprNode, RowExpr, Rule, Unary
from omrlang.walk import children, describe


@dataclass(frozen=True, slots=True)
class _Reach:
    """The rows that come this far: ``rows`` times the shares in ``passed``, times one less each of ``refused``."""

    rows: Estimate
    passed: dict[str, Estimate] = field(default_factory=dict)
    refused: dict[str, Estimate] = field(default_factory=dict)

    def after(self, name: str, rate: Estimate) -> _Reach:
        return _Reach(self.rows, {**self.passed, name: rate}, self.refused)

    def without(self, name: str, rate: Estimate) -> _Reach:
        return _Reach(self.rows, self.passed, {**self.refused, name: rate})

    def times(self) -> Estimate:
        if not self.passed and not self.refused:
            return self.rows.model_copy(update={"unit": "times"})

        def product(**values: float) -> float:
            result = 1.0
            for name, value in values.items():
                result *= 1 - value if name in self.refused else value
            return result

        inputs = {"rows": self.rows, **self.passed, **self.refused}
        formula = "rows x shares that come this far"
        return derive_from("times", formula, product, inputs, frozenset(self.refused))


def cascade(expr: RowExpr, rows: Estimate, keep: Estimate | None) -> tuple[Asked, ...]:
    """Each rule in running order with what it asks. ``keep`` is the share for which the whole is true, where known."""
    share, reach = _share(keep, len(expr.rules)), _Reach(rows)
    found = []
    for rule in expr.rules:
        parts = tuple(_parts(rule.tree, reach, share))
        found.append(
            Asked(what=rule.name, asks=_dearest(rule, parts), times=reach.times(), parts=parts)
        )
        reach = reach.after(rule.name, share)
    return tuple(found)


def _share(keep: Estimate | None, num_rules: int) -> Estimate:
    if keep is None:
        return _guess()
    if num_rules <= 1:
        return keep
    formula = f"each of {num_rules} rules lets the same share through"
    return derive("", formula, lambda keep: keep ** (1 / num_rules), keep=keep)


def _guess() -> Estimate:
    return between(
        *assumptions.KEEP_RATE, "", "assumed", "nothing known about what it lets through"
    )


def _dearest(rule: Rule, parts: tuple[Asked, ...]) -> Asks:
    order: tuple[Asks, ...] = (
        "sql",
        "row",
        "tokens",
        "response",
        "stage",
        "rows",
        "worker",
        "code",
        "model",
    )
    own: Asks = "sql" if rule.sql is not None else "row"
    return max((own, *(part.asks for part in parts)), key=order.index)


def _parts(node: ExprNode, reach: _Reach, rate: Estimate) -> Iterator[Asked]:
    """What is asked on the way to a node's value; ``rate`` is the share for which it is true."""
    match node:
        case Call():
            asks = "code" if node.verifier is not None else FUNCTIONS[node.fn].asks
            if asks not in IN_THE_ROW:
                yield Asked(what=describe(node), asks=asks, times=reach.times())
            for child in children(node):
                yield from _parts(child, reach, _guess())
        case Binary(op="or"):
            left = derive(
                "", "how much of it the left side lets through is not known", lambda rate, part: rate * part,
                rate=rate, part=_guess(),
            )  # fmt: skip
            yield from _parts(node.left, reach, left)
            yield from _parts(node.right, reach.without(_name(node.left), left), rate)
        case Binary(op="and"):
            half = derive(
                "", "each side lets the same share through", lambda rate: rate**0.5, rate=rate
            )
            yield from _parts(node.left, reach, half)
            yield from _parts(node.right, reach.after(_name(node.left), half), half)
        case Unary(op="not"):
            refused = derive(
                "", "what is refused", lambda rate: 1 - rate, falling=["rate"], rate=rate
            )
            yield from _parts(node.x, reach, refused)
        case _:
            for child in children(node):
                yield from _parts(child, reach, _guess())


def _name(node: ExprNode) -> str:
    """What a side of ``and`` or ``or`` is called among the inputs of an estimate."""
    if isinstance(node, Call):
        return describe(node)
    names = [_name(child) for child in children(node)]
    return f" {node.op} ".join(names) if isinstance(node, Binary) else node.op
