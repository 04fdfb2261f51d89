"""The plan: the one object between compiler and runtime, typed, frozen, versioned, serialisable.

``omr run`` executes only a plan; text, JSON and Markdown are views of it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, TypeAlias

from pydantic import Field

from omrlang.functions import Asks
from omrlang.schema import Spec
from omrlang.types import Frozen, Model, SettingClass, construct

FORMAT_VERSION = "1.0"

Origin: TypeAlias = Literal["measured", "calibrated", "formula", "declared", "assumed", "unknown"]
Action: TypeAlias = Literal["new", "partial", "cached", "redo", "removed", "unknown"]
Reason: TypeAlias = Literal[
    "new",
    "removed",
    "param_changed",
    "parent_changed",
    "source_revision_changed",
    "model_revision_changed",
    "code_version_changed",
    "cache_missing",
    "cache_corrupt",
    "partial_cache",
    "forced",
    "previous_run_failed",
]

SYMBOL: dict[Action, str] = {
    "new": "+",
    "partial": "~",
    "cached": "=",
    "redo": "-/+",
    "removed": "-",
    "unknown": "?",
}


class Estimate(Frozen):
    """A number as a range with an origin. ``mid`` is None exactly when the origin is ``unknown``.

    ``formula`` says in field terms how it was made; ``inputs`` are the (name, value with unit, origin) it was made of.
    """

    lo: float | None
    mid: float | None
    hi: float | None
    unit: str
    origin: Origin
    formula: str = ""
    inputs: tuple[tuple[str, str, Origin], ...] = ()


class Money(Frozen):
    """Dollars as a range with an origin: decimals, which JSON has as strings."""

    lo: Decimal | None
    mid: Decimal | None
    hi: Decimal | None
    unit: Literal["USD"] = "USD"
    origin: Origin
    formula: str = ""
    inputs: tuple[tuple[str, str, Origin], ...] = ()


class Memory(Frozen):
    """Per GPU (or per process without one), in bytes, by part."""

    parts: dict[str, Estimate]
    total: Estimate
    capacity_bytes: float | None
    verdict: Literal["fits", "uncertain", "does not fit", "unknown"]
    flips: tuple[str, ...] = ()


class Asked(Frozen):
    """How often a rule, or a verifier or judge within one, is expected to be asked. ``asks`` says what an answer needs,
    of a rule the dearest of its ``parts``."""

    what: str
    asks: Asks
    times: Estimate
    parts: tuple[Asked, ...] = ()


class Costs(Frozen):
    """What one stage takes. ``usd`` is a decimal string in JSON. ``rows_by_source`` is the funnel by the column `source`.

    ``rows_out`` of a training stage are the rows or rollouts it learned from, of an ``eval`` its answers. ``extra`` holds
    what only some kinds have: ``steps``, ``epochs``, ``rollouts``, ``prompt_tokens``. ``tokens`` are written by ``sample`` and
    ``eval`` and go through the trainer in ``sft`` and ``rl``. All costs are of the whole stage, as if nothing were cached;
    ``Totals`` leave out what is. ``asked`` has the rules of ``keep``, ``reward`` or ``score`` in running order.
    """

    rows_in: Estimate
    rows_out: Estimate
    tokens: Estimate
    seconds: Estimate
    gpu_hours: Estimate
    usd: Money
    memory: Memory | None = None
    rows_by_source: dict[str, Estimate] = Field(default_factory=dict)
    extra: dict[str, Estimate] = Field(default_factory=dict)
    asked: tuple[Asked, ...] = ()


class Change(Frozen):
    """A value that moved: ``path`` is the setting (``lr.peak``) or the clause (``from.puzzles``)."""

    path: str
    cls: SettingClass
    old: str
    new: str


class PlanStage(Frozen):
    """``address`` is ``kind.name``. ``fingerprint`` names the stage's artifact in the store; ``parents`` are names of
    stages in this plan. ``revision`` pins what lies outside the recipe: the content of a source's file, a hub revision.
    it is None where that could not be known now, or where nothing lies outside. ``changes`` are the settings that made it a
    ``redo``."""

    address: str
    name: str
    spec: Spec
    fingerprint: str
    parents: tuple[str, ...]
    revision: str | None = None
    action: Action
    reasons: tuple[Reason, ...] = ()
    reason_text: str = ""
    changes: tuple[Change, ...] = ()
    costs: Costs | None = None


class PlanCode(Frozen):
    """Code of the recipe's own that will run: ``files`` start at the recipe's folder, ``sha256`` is of all of them."""

    entry: str
    files: tuple[str, ...]
    sha256: str
    stages: tuple[str, ...]


class Totals(Frozen):
    rows_sampled: Estimate
    tokens: Estimate
    seconds: Estimate
    gpu_hours: Estimate
    usd: Money
    not_estimated: int


class PlanDiagnostic(Frozen):
    code: str
    severity: Literal["error", "warning", "note"]
    message: str
    path: str
    line: int
    column: int
    hint: str | None = None


class Exit(Frozen):
    code: int
    reason: str


class Plan(Frozen):
    """``recipe`` is the file as given, ``folder`` what its relative paths are relative to (absolute),
    ``overrides`` what ``--set`` changed, ``because`` why the recipe exists in its author's words.

    ``removed`` are stages that an earlier plan of this recipe had and that are no longer there; nothing runs for them."""

    format_version: str = FORMAT_VERSION
    omr_version: str
    recipe: str
    folder: str
    overrides: tuple[str, ...] = ()
    because: str | None = None
    seed: int
    stages: tuple[PlanStage, ...]
    models: tuple[Model, ...]
    code: tuple[PlanCode, ...] = ()
    removed: tuple[str, ...] = ()
    totals: Totals
    diagnostics: tuple[PlanDiagnostic, ...] = ()
    budget_p50_usd: Decimal | None = None
    budget_p90_usd: Decimal | None = None
    applyable: bool = True
    complete: bool = True
    errored: bool = False
    exit: Exit = construct(Exit, code=0, reason="ok")
    not_in_it: tuple[str, ...] = ("queue time", "storage", "failed nodes")

    def stage(self, name: str) -> PlanStage:
        """The stage of that name. KeyError if there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)
