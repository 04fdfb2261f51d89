"""The plan: the one object between compiler and runtime, typed, frozen, versioned, serialisable.

``omr run`` executes only a plan; text, JSON and Markdown are views of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

from pydantic import Field, PrivateAttr

from omrlang.functions import Asks
from omrlang.schema import Eval, Filter, Sample, Spec
from omrlang.types import Frozen, Hardware, Model, SettingClass, construct
from omrlang.types.models import Ray

FORMAT_VERSION = "1.0"
SAVED_SUFFIX = ".omrplan"

Origin: TypeAlias = Literal["measured", "calibrated", "formula", "declared", "assumed", "unknown"]
Action: TypeAlias = Literal["new", "partial", "cached", "redo", "removed"]
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
}
UNSETTLED = "?"
"""Stands behind a number of rows that hangs on what is still to be sampled and filtered."""


@dataclass(slots=True, unsafe_hash=True)
class Input:
    """A number by the name that it has in the formula of another, without what it was made of itself.

    Never changed; not ``frozen``, which would make it three times as slow to build, and a plan has thousands.
    """

    name: str
    lo: float | None
    mid: float | None
    hi: float | None
    unit: str
    origin: Origin
    formula: str = ""


class Made:
    """How a number came about, while the plan is in the process that made it: ``rule`` of ``parts``, by name.

    It is no part of what a number is: two numbers that differ in it alone are equal, and JSON does not have it.
    """

    __slots__ = ("falling", "parts", "rule")

    def __init__(
        self,
        rule: Callable[..., float] | None = None,
        parts: Mapping[str, Estimate] | None = None,
        falling: frozenset[str] = frozenset(),
    ) -> None:
        self.rule, self.parts, self.falling = rule, parts or {}, falling

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Made)

    def __hash__(self) -> int:
        return 0


NOTHING_MADE = Made()


class Estimate(Frozen):
    """A number as a range with an origin. ``mid`` is None exactly when the origin is ``unknown``.

    ``formula`` says in field terms how it was made, of an unknown one why it is unknown; ``inputs`` are what it was made of.
    """

    lo: float | None
    mid: float | None
    hi: float | None
    unit: str
    origin: Origin
    formula: str = ""
    inputs: tuple[Input, ...] = ()
    _made: Made = PrivateAttr(default_factory=lambda: NOTHING_MADE)

    @property
    def made(self) -> Made:
        """The numbers that it was made of, each of which can be opened in turn; nothing of a plan that was read."""
        return self._made

    def made_by(self, made: Made) -> Estimate:
        """The same number, which remembers how it came about."""
        self._made = made
        return self


class Money(Frozen):
    """Dollars as a range with an origin: decimals, which JSON has as strings."""

    lo: Decimal | None
    mid: Decimal | None
    hi: Decimal | None
    unit: Literal["USD"] = "USD"
    origin: Origin
    formula: str = ""
    inputs: tuple[Input, ...] = ()
    _made: Made = PrivateAttr(default_factory=lambda: NOTHING_MADE)

    @property
    def made(self) -> Made:
        """As of an ``Estimate``."""
        return self._made

    def made_by(self, made: Made) -> Money:
        """As of an ``Estimate``."""
        self._made = made
        return self


Verdict: TypeAlias = Literal["fits", "uncertain", "does not fit", "unknown"]


class Memory(Frozen):
    """Per GPU (or per process without one), in bytes, by part."""

    parts: dict[str, Estimate]
    total: Estimate
    capacity_bytes: float | None
    verdict: Verdict
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


class Where(Frozen):
    """A place in a recipe; lines and columns count from 1."""

    file: str
    line: int
    column: int


class Change(Frozen):
    """A value that moved: ``path`` is the setting (``lr.peak``) or the clause (``from.puzzles``).

    ``layer`` set the new value (``default``, ``file``, ``amend``, ``set``, …) and ``at`` is where it stands; both are
    None for what no recipe says (a file's content, a parent, a version)."""

    path: str
    cls: SettingClass
    old: str
    new: str
    reason: Reason = "param_changed"
    layer: str | None = None
    at: Where | None = None


class Drift(Frozen):
    """An input is not what it was: in the ``last run`` of this recipe, or in its ``lock``."""

    since: Literal["last run", "lock"]
    before: str
    after: str


class PlanPin(Frozen):
    """Something outside the recipe that stages read: ``what`` as the recipe names it.

    ``revision`` is the sha256 of local files, or the revision on a hub; None where it could not be known, and ``problem``
    says why. ``stages`` are the names of those that read it."""

    kind: Literal["data", "model"]
    what: str
    revision: str | None
    num_rows: int | None = None
    num_bytes: int | None = None
    stages: tuple[str, ...] = ()
    drift: tuple[Drift, ...] = ()
    locked: bool = False
    problem: str | None = None


class PlanStage(Frozen):
    """``address`` is ``kind.name``. ``fingerprint`` names the stage's artifact in the store; ``parents`` are names of
    stages in this plan. ``revision`` pins what lies outside the recipe: the content of a source's file, a hub revision.
    it is None where that could not be known now, or where nothing lies outside. ``changes`` are what made it a ``redo``.
    ``kept_rows`` of a ``partial`` stage need not be made again. ``settled_by`` names the first stage that must have run
    before the number of rows is certain. A stage that is not ``selected`` stays as it is."""

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
    kept_rows: int | None = None
    settled_by: str | None = None
    selected: bool = True
    costs: Costs | None = None

    @property
    def is_due(self) -> bool:
        """Whether a run of the plan executes this stage."""
        return self.selected and self.action != "cached"


class RemovedStage(Frozen):
    """A stage that the last run of this recipe had and the recipe has no more; nothing runs for it."""

    address: str
    name: str
    fingerprint: str
    action: Literal["removed"] = "removed"
    reasons: tuple[Reason, ...] = ("removed",)
    num_rows: int | None = None


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
    ``overrides`` what ``--set`` changed, ``because`` why the recipe exists in its author's words; ``selection`` and
    ``forced`` are what ``--select`` and ``--force`` said. ``pins`` are what the stages read from outside."""

    format_version: str = FORMAT_VERSION
    omr_version: str
    recipe: str
    folder: str
    overrides: tuple[str, ...] = ()
    selection: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()
    because: str | None = None
    seed: int
    stages: tuple[PlanStage, ...]
    models: tuple[Model, ...]
    code: tuple[PlanCode, ...] = ()
    pins: tuple[PlanPin, ...] = ()
    removed: tuple[RemovedStage, ...] = ()
    totals: Totals
    diagnostics: tuple[PlanDiagnostic, ...] = ()
    budget_p50_usd: Decimal | None = None
    budget_p90_usd: Decimal | None = None
    usd_p50: Decimal | None = Field(
        default=None,
        description="dollars that half of the simulated cases stay below; only with a budget",
    )
    usd_p90: Decimal | None = Field(
        default=None,
        description="dollars that nine of ten simulated cases stay below; only with a budget",
    )
    applyable: bool = True
    complete: bool = True
    errored: bool = False
    exit: Exit = construct(Exit, code=0, reason="ok")
    not_in_it: tuple[str, ...] = ("queue time", "storage", "failed nodes")

    @property
    def due(self) -> tuple[PlanStage, ...]:
        """The stages that a run of the plan executes, in order."""
        return tuple(stage for stage in self.stages if stage.is_due)

    def on(self, cluster: Ray) -> Plan:
        """The same plan with sampling, verification and evaluation on a cluster: no fingerprint moves, none of its rows."""
        stages = tuple(
            stage.model_copy(update=_moved(stage.spec, cluster)) for stage in self.stages
        )
        return self.model_copy(update={"stages": stages})

    def stage(self, name: str) -> PlanStage:
        """The stage of that name. KeyError if there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)


class PlanFailure(Frozen):
    """What stands in the place of a plan that could not be made."""

    format_version: str = FORMAT_VERSION
    recipe: str
    applyable: Literal[False] = False
    complete: Literal[False] = False
    errored: Literal[True] = True
    diagnostics: tuple[PlanDiagnostic, ...]
    exit: Exit = construct(Exit, code=1, reason="errors")


def _moved(spec: Spec, cluster: Ray) -> dict[str, Spec]:
    """The spec on the cluster, on what its own hardware asks of one."""
    if not isinstance(spec, Sample | Filter | Eval):
        return {}
    own = spec.hardware
    if own is not None and own.cluster is not None:
        kept = {"engines": own.cluster.engines, "wait": own.cluster.wait}
        cluster = cluster.model_copy(update=kept)
    elif own is not None and own.gpu is None:
        cluster = cluster.model_copy(update={"engines": own.count})
    machines = own or Hardware(name="ray", count=1)
    placed = machines.model_copy(update={"cluster": cluster})
    return {"spec": spec.model_copy(update={"hardware": placed})}
