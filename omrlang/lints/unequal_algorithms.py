"""W113: two RL stages compare algorithms and differ in more than the algorithm.

Seen in a published recipe: "identical settings", while GRPO averages over tokens and GSPO over sequences, on half the
devices and with another reward manager. What differs besides the algorithm may be what made the difference.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic, listed
from omrlang.hir import Stage
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.references import declarations
from omrlang.schema import Rl
from omrlang.settle import settle
from omrlang.types import Algorithm, Setting

SHARED = ("kl", "mean", "dual_clip", "kl_estimator", "entropy")
"""Arguments that are no part of what makes an algorithm; left to their default they are."""


def lint(graph: Graph) -> Iterator[Diagnostic]:
    first: dict[object, tuple[Stage, Rl]] = {}
    for stage, spec in graph.of(Rl):
        base, other = first.setdefault(spec.model, (stage, spec))
        if spec.algorithm.kind == other.algorithm.kind:
            continue
        if differ := [*_settings(spec, other), *_arguments(spec.algorithm, other.algorithm)]:
            message = (
                f"{spec.algorithm.kind} in `{spec.name}` and {other.algorithm.kind} in `{other.name}`"
                f" start from one model and differ in {listed(differ, 'and')} too"
            )
            related = ((base.span, "compared with this one"),)
            yield warning("W113", message, setting_span(stage, "algorithm"), None, related)


def _settings(one: Rl, other: Rl) -> Iterator[str]:
    """What decides the trained model, apart from the algorithm itself."""
    mine, theirs = settle(one), settle(other)
    for name, declared in declarations(one):
        is_term = declared.cls == "weights" and name not in ("model", "algorithm")
        if is_term and getattr(mine, name) != getattr(theirs, name):
            yield f"`{name}`" if isinstance(declared, Setting) else f"`{declared.word}`"


def _arguments(one: Algorithm, other: Algorithm) -> Iterator[str]:
    for name in SHARED:
        if not (hasattr(one, name) and hasattr(other, name)):
            continue
        pair = getattr(one, name), getattr(other, name)
        usual = tuple(type(side).model_fields[name].default for side in (one, other))
        if pair[0] != pair[1] and pair != usual:
            yield f"`{name}`"
