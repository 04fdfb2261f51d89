"""A recipe's stages as a graph, where a finding points to, and the questions that several lints ask."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, overload

from omrlang.diagnostics import Diagnostic
from omrlang.estimate.shapes import root_model
from omrlang.functions import FUNCTIONS
from omrlang.hir import Recipe, Stage
from omrlang.references import calls as expression_calls
from omrlang.schema import Eval, Filter, Mix, Rl, Sample, Sft, Source
from omrlang.schema.stage import StageSpec
from omrlang.settle import num_devices, settled_amount
from omrlang.source import Span
from omrlang.types import Call, Col, ExprNode, Model, Prompt, RowExpr, TrainedModel
from omrlang.walk import calls, children

if TYPE_CHECKING:
    from omrlang.plan import Costs

A = TypeVar("A", bound=StageSpec)
B = TypeVar("B", bound=StageSpec)
C = TypeVar("C", bound=StageSpec)
D = TypeVar("D", bound=StageSpec)

WRITTEN = frozenset(
    ("response", "thinking", "final_answer", "sample_index", "num_tokens", "finish")
)
"""Columns that differ between the responses to one question."""

SAME_FOR_ALL = ("sql", "row", "tokens", "stage", "rows")
"""What a function asks when, of the same arguments, it says the same for every response to a question."""


class Graph:
    """A recipe's stages, found by name; with ``costs`` it is the graph of a plan and knows more numbers."""

    def __init__(self, recipe: Recipe, costs: Mapping[str, Costs] | None = None) -> None:
        self.stages = recipe.stages
        self.costs = costs or {}
        self.by_name = {stage.spec.name: stage for stage in recipe.stages}
        self.specs = {stage.spec.name: stage.spec for stage in recipe.stages}

    @overload
    def of(self, a: type[A], /) -> Iterator[tuple[Stage, A]]: ...
    @overload
    def of(self, a: type[A], b: type[B], /) -> Iterator[tuple[Stage, A | B]]: ...
    @overload
    def of(self, a: type[A], b: type[B], c: type[C], /) -> Iterator[tuple[Stage, A | B | C]]: ...
    @overload
    def of(
        self, a: type[A], b: type[B], c: type[C], d: type[D], /
    ) -> Iterator[tuple[Stage, A | B | C | D]]: ...

    def of(self, *kinds: type[Any]) -> Iterator[tuple[Stage, Any]]:
        """The stages of some kinds, each with its specification."""
        for stage in self.stages:
            if isinstance(stage.spec, kinds):
                yield stage, stage.spec

    def ancestors(self, stage: Stage) -> Iterator[Stage]:
        """The stages that a stage's rows came through, nearest first."""
        todo = deque(row_parents(stage))
        seen: set[str] = set()
        while todo:
            name = todo.popleft()
            if name not in seen:
                seen.add(name)
                yield self.by_name[name]
                todo.extend(row_parents(self.by_name[name]))

    def sources(self, stage: Stage) -> Iterator[tuple[Stage, Source]]:
        """The sources that a stage's rows come from, itself if it is one."""
        for found in (stage, *self.ancestors(stage)):
            if isinstance(found.spec, Source):
                yield found, found.spec

    @cached_property
    def published(self) -> dict[str, frozenset[str]]:
        """The published sets whose items are in the rows of each stage. One pass, since parents stand before children."""
        found: dict[str, frozenset[str]] = {}
        for stage in self.stages:
            own = stage.spec.contains if isinstance(stage.spec, Source) else ()
            found[stage.spec.name] = frozenset(own).union(
                *(found[name] for name in row_parents(stage))
            )
        return found

    def trainings(self, stage: Stage) -> Iterator[Stage]:
        """The stages that made the model of a stage, the last first."""
        while isinstance(stage.spec, Eval | Sample | Sft | Rl) and isinstance(
            stage.spec.model, TrainedModel
        ):
            stage = self.by_name[stage.spec.model.stage]
            yield stage

    def root(self, spec: Sample | Sft | Rl | Eval) -> Model | None:
        """The declared model that a stage's model descends from."""
        return root_model(spec.model, self.specs)

    def sees_images(self, stage: Stage) -> bool:
        """Whether a model that sees is shown rows with images."""
        spec = stage.spec
        root = self.root(spec) if isinstance(spec, Sample | Sft | Rl | Eval) else None
        has_eyes = root is not None and (
            root.vision or (root.shape is not None and root.shape.vision_params > 0)
        )
        return has_eyes and any(has_images(source) for _, source in self.sources(stage))

    def num_rows(self, name: str) -> float | None:
        """Rows that a stage gives, where that is no guess."""
        if name in self.costs:
            rows = self.costs[name].rows_out
            return None if rows.origin == "assumed" else rows.mid
        spec = self.specs[name]
        if not isinstance(spec, Source):
            return None
        known = (spec.rows, getattr(spec.place, "n", None), spec.take)
        return min((number for number in known if number is not None), default=None)

    def num_steps(self, spec: Sft | Rl) -> tuple[float, float] | None:
        """At least and at most so many optimiser steps; rollout steps in ``rl``."""
        if spec.steps is not None:
            return spec.steps, spec.steps
        rows, each = self.num_rows(spec.rows), rows_a_step(spec)
        if rows is not None and each is not None and spec.epochs is not None:
            return spec.epochs * rows / each, spec.epochs * rows / each
        return self._extra(spec.name, "steps")

    def num_epochs(self, spec: Sft | Rl) -> tuple[float, float] | None:
        """At least and at most so many passes over the rows."""
        if spec.epochs is not None:
            return spec.epochs, spec.epochs
        rows, each = self.num_rows(spec.rows), rows_a_step(spec)
        if rows and each is not None and spec.steps is not None:
            return spec.steps * each / rows, spec.steps * each / rows
        return self._extra(spec.name, "epochs")

    def _extra(self, name: str, what: str) -> tuple[float, float] | None:
        found = self.costs[name].extra.get(what) if name in self.costs else None
        if found is None or found.lo is None or found.hi is None:
            return None
        return found.lo, found.hi


def rows_a_step(spec: Sft | Rl) -> float | None:
    """Rows of one step; of packs nobody knows before they are packed."""
    batch = settled_amount(spec.batch, num_devices(spec))
    return batch.value if batch.unit in ("rows", "prompts") else None


def warning(
    code: str,
    message: str,
    span: Span,
    hint: str | None = None,
    related: tuple[tuple[Span, str], ...] = (),
) -> Diagnostic:
    """What a lint says."""
    return Diagnostic(code, message, span, "warning", hint, related)


def setting_span(stage: Stage, key: str) -> Span:
    """The value of a setting; the stage's name where it is a default."""
    provenance = stage.settings.get(key)
    return provenance.span if provenance and provenance.span else stage.span


def row_parents(stage: Stage) -> tuple[str, ...]:
    """The names of the stages whose rows go in."""
    match stage.spec:
        case Source():
            return ()
        case Mix(parts=parts):
            return tuple(part.rows for part in parts)
        case Eval(rows=rows):
            return rows
        case Sample(rows=name) | Filter(rows=name) | Sft(rows=name) | Rl(rows=name):
            return (name,)


def verifies(stage: Stage) -> tuple[str, RowExpr | None]:
    """The setting in which verifiers stand, and its expression."""
    match stage.spec:
        case Filter(keep=keep):
            return "keep", keep
        case Rl(reward=reward):
            return "reward", reward
        case Eval(score=score):
            return "score", score
        case _:
            return "", None


def looked_at(stage: Stage, fn: str) -> set[str]:
    """The stages whose rows or verdicts a stage looks at, if it does so by the function ``fn``."""
    return {name for call in expression_calls(stage.spec) if call.fn == fn for name in call.stages}


def judges(tree: ExprNode) -> list[Call]:
    """The calls that ask a model."""
    return [call for call in calls(tree) if call.fn == "judge"]


def asks_response(tree: ExprNode) -> bool:
    """Whether an expression can differ between two responses to one question."""
    if isinstance(tree, Col) and tree.name in WRITTEN:
        return True
    if isinstance(tree, Call):
        function = FUNCTIONS.get(tree.fn)
        if function is None or function.asks not in SAME_FOR_ALL:
            return True
    return any(asks_response(child) for child in children(tree))


def has_images(source: Source) -> bool:
    return "images" in source.columns or source.place.kind == "synthetic"


def same_prompt(one: Prompt, other: Prompt) -> bool:
    """What the model sees: system prompt and tags; the name and how answers are repaired do not matter."""
    return (one.system, one.thinking, one.answer) == (other.system, other.thinking, other.answer)


def same_weights(one: Model | TrainedModel, other: Model | TrainedModel) -> bool:
    """The same weights, however they are reached."""
    if isinstance(one, Model) and isinstance(other, Model):
        return one.source == other.source
    return one == other
