"""A row expression's tree to the calls in it, and a call to the text that names it in verdicts and plans."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from omrlang.types import (
    Between,
    Binary,
    Call,
    Col,
    ExprNode,
    Index,
    ListOf,
    Lit,
    Model,
    Unary,
)


def children(node: ExprNode) -> tuple[ExprNode, ...]:
    """The operands of a node, in source order."""
    match node:
        case Lit() | Col():
            return ()
        case ListOf():
            return node.items
        case Unary():
            return (node.x,)
        case Binary():
            return (node.left, node.right)
        case Between():
            return (node.x, node.lo, node.hi)
        case Index():
            return (node.x, node.at)
        case Call():
            return (*node.args, *(value for _, value in node.named))
        case _:
            assert_never(node)


def calls(tree: ExprNode) -> Iterator[Call]:
    """All calls, in source order, a call before those in its arguments."""
    if isinstance(tree, Call):
        yield tree
    for child in children(tree):
        yield from calls(child)


def describe(call: Call) -> str:
    """How a verifier is named where it stands within a rule.

    >>> describe(Call(fn="pass_rate", stages=("probe",))), describe(Call(fn="format_ok"))
    ('pass_rate(probe)', 'format_ok')
    """
    asked = [*call.stages]
    if call.model is not None:
        asked.append(call.model.name if isinstance(call.model, Model) else call.model.stage)
    named = [f"{name} = {_value(value)}" for name, value in call.named]
    inside = ", ".join([*asked, *named])
    return f"{call.fn}({inside})" if inside else call.fn


def _value(node: ExprNode) -> str:
    if isinstance(node, Lit):
        return str(node.value).lower() if isinstance(node.value, bool) else str(node.value)
    return "…"
