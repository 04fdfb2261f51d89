"""The sweeps of a recipe to its variants: every combination of their values, each with a label."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from omrlang import syntax as s
from omrlang.diagnostics import Reporter
from omrlang.format import format_expression
from omrlang.scope import Draft, Scope, Slot
from omrlang.source import Span

MAX_VARIANTS = 512


@dataclass(frozen=True, slots=True)
class Sweep:
    """``address`` is what varies (``distil.n``); ``options`` are the values by label."""

    address: str
    call: s.CallExpr
    options: dict[str, s.Expr]


@dataclass(frozen=True, slots=True)
class Variant:
    """``label`` is as in ``x.omr[distil.n=4]``; ``chosen`` maps the place of each sweep to its value here."""

    label: str
    chosen: Mapping[Span, s.Expr]


def sweeps(scope: Scope, reporter: Reporter) -> list[Sweep]:
    """The sweeps that stand in the recipe once amending files and overrides are laid on top, in source order."""
    found: dict[Span, Sweep] = {}
    says_it: dict[int, bool] = {}
    for address, expr in _values(scope):
        file = expr.span.file
        if id(file) not in says_it:
            says_it[id(file)] = "sweep" in file.text
        if not says_it[id(file)]:
            continue
        for call in _sweep_calls(expr):
            if call.span not in found:
                taken = sum(sweep.address == address for sweep in found.values())
                name = f"{address}#{taken + 1}" if taken else address
                found[call.span] = Sweep(name, call, _options(call, reporter))
    return list(found.values())


def variants(found: list[Sweep], reporter: Reporter) -> list[Variant]:
    """Their product; the first sweep varies slowest. Empty after a report."""
    number = 1
    for sweep in found:
        number *= max(1, len(sweep.options))
    if number > MAX_VARIANTS:
        message = f"the sweeps make {number:,} variants, over {MAX_VARIANTS}"
        reporter.error("E308", message, found[0].call.span)
        return []
    return [
        Variant(
            ",".join(
                f"{sweep.address}={label}" for sweep, (label, _) in zip(found, row, strict=True)
            ),
            {sweep.call.span: value for sweep, (_, value) in zip(found, row, strict=True)},
        )
        for row in itertools.product(*(sweep.options.items() for sweep in found))
    ]


def _options(call: s.CallExpr, reporter: Reporter) -> dict[str, s.Expr]:
    """The values by label: as given, else the value's own text."""
    options: dict[str, s.Expr] = {}
    for arg in call.args:
        label = arg.name.id if arg.name is not None else _label(arg.value)
        if label is None:
            hint = "such as `sweep(short = cosine(1e-5), long = cosine(5e-5))`"
            reporter.error("E308", "this value of a sweep needs a label", arg.span, hint)
        elif label in options:
            reporter.error("E308", f"`{label}` stands twice in the sweep", arg.span)
        elif any(True for _ in _sweep_calls(arg.value)):
            reporter.error("E308", "a sweep within a sweep", arg.span, "two sweeps multiply")
        else:
            options[label] = arg.value
    if len(call.args) < 2:
        reporter.error("E308", "a sweep is over two values or more", call.span)
    return options


def _label(expr: s.Expr) -> str | None:
    """The text of a value that is short and plain enough to be its own label."""
    if isinstance(expr, s.Text):
        return expr.value if expr.value.isprintable() and len(expr.value) <= 40 else None
    plain = (s.Number, s.Constant, s.Name, s.Attr, s.UnaryExpr, s.RangeExpr)
    return format_expression(expr).replace(" ", "") if isinstance(expr, plain) else None


# ---- where sweeps stand ------------------------------------------------------------------------


def _values(scope: Scope) -> Iterator[tuple[str, s.Expr]]:
    """Every value of the recipe with its address."""
    if scope.seed is not None:
        yield "seed", scope.seed.expr
    for name, bound in scope.lets.items():
        yield name, bound.expr
    yield from _slots("budget", scope.budget)
    for draft in _drafts(scope):
        if draft.base is not None:
            yield draft.name, draft.base.expr
        for word, bound in draft.clauses.items():
            yield f"{draft.name}.{word}", bound.expr
        yield from _slots(draft.name, draft.settings)


def _drafts(scope: Scope) -> Iterator[Draft]:
    yield from scope.drafts.known()  # nothing of the library itself is swept
    for module in scope.modules.values():
        yield from _drafts(module)


def _slots(owner: str, slots: dict[str, Slot]) -> Iterator[tuple[str, s.Expr]]:
    for key, slot in slots.items():
        if slot.value is not None:
            yield f"{owner}.{key}", slot.value.expr
        yield from _slots(f"{owner}.{key}", slot.group)


def _sweep_calls(expr: s.Expr) -> Iterator[s.CallExpr]:
    todo: list[s.Node] = [expr]
    while todo:
        node = todo.pop()
        if isinstance(node, s.CallExpr) and isinstance(node.fn, s.Name) and node.fn.id == "sweep":
            yield node
            continue
        for item in fields(node):
            value = getattr(node, item.name)
            parts = value if isinstance(value, tuple) else (value,)
            todo.extend(part for part in reversed(parts) if isinstance(part, s.Node))
