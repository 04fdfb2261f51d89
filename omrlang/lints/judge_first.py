"""W127: a judge is asked before a rule that costs nothing.

`and` and `or` stop at the first operand that decides. With the judge in front every row waits for a large model; behind a
rule only those do that the rule leaves open.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, asks_response, judges, setting_span, verifies, warning
from omrlang.types import Binary, ExprNode
from omrlang.walk import children


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage in graph.stages:
        key, expr = verifies(stage)
        if expr is not None and _is_first(expr.tree):
            message = (
                f"in {stage.spec.kind} `{stage.spec.name}` the judge is asked before a rule is"
            )
            hint = "the operand with the judge belongs behind the others"
            yield warning("W127", message, setting_span(stage, key), hint)


def _is_first(node: ExprNode) -> bool:
    """Whether some `and` or `or` has a judge on its left and rules over the response on its right."""
    if isinstance(node, Binary) and node.op in ("and", "or"):
        is_rule = asks_response(node.right) and not judges(node.right)
        if is_rule and judges(node.left):
            return True
    return any(_is_first(child) for child in children(node))
