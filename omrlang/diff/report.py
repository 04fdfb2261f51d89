"""What a diff says, as data: factors, what moves with them, stages and costs; text, JSON, Markdown and HTML are drawn from it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from omrlang.hir import Layer
from omrlang.plan import Estimate, Exit, Money, Totals
from omrlang.types import Frozen, SettingClass, construct

FORMAT_VERSION = "2.1"

Effect: TypeAlias = Literal["same", "changed", "downstream", "not in meaning", "added", "removed"]
Role: TypeAlias = Literal["acts", "holds", "idle", "open"]
"""What a factor does: makes the experiment; keeps a derived quantity where it was; cannot act under these plans;
or has a value that nobody published, so that nobody knows."""
Matters: TypeAlias = Literal["confound", "unknown", "follows", "cost"]
"""Of a move: a second cause beside the factor; may be one, which only a run tells; belongs to another move or to the
factor itself; or changes the price alone."""
Kind: TypeAlias = Literal[
    "no change", "no change in meaning", "no effect", "clean", "not clean", "unknown", "stages only"
]


class Place(Frozen):
    """Which layer set a value, and where. A default has no place."""

    layer: Layer
    path: str | None = None
    line: int | None = None
    column: int | None = None

    @property
    def text(self) -> str:
        """``x4.omr:6:7``, or the layer where no file has it."""
        if self.layer == "set":
            return "--set"
        numbers = (self.path, self.line, self.column)
        return ":".join(str(item) for item in numbers if item is not None) or self.layer


class Factor(Frozen):
    """One thing that somebody set differently, counted once however many ``stages`` share it.

    ``old_at`` and ``new_at`` are None where nobody knows who set the value (a run, a plan made elsewhere).
    """

    path: str
    cls: SettingClass
    old: str
    new: str
    stages: tuple[str, ...]
    role: Role = "acts"
    note: str = ""
    old_at: Place | None = None
    new_at: Place | None = None

    @property
    def address(self) -> str:
        """``distil.n``; of several stages the setting alone."""
        return f"{self.stages[0]}.{self.path}" if len(self.stages) == 1 else self.path


class Hold(Frozen):
    """A setting (``key``) or clause (``from``) of a stage that would keep a quantity where it was."""

    stage: str
    key: str
    value: str
    drops_expect: bool = False

    @property
    def text(self) -> str:
        """As a recipe would write it in one line."""
        return (
            f"{self.stage} from {self.value}"
            if self.key == "from"
            else f"{self.stage}.{self.key} = {self.value}"
        )


class Move(Frozen):
    """A quantity that moves although nobody wrote it. ``old`` and ``new`` are numbers where it has them; the texts are
    what is shown. ``subject`` is the source or setting within the stage that it is about."""

    stage: str
    quantity: str
    old_text: str
    new_text: str
    why: str
    subject: str = ""
    old: float | None = None
    new: float | None = None
    matters: Matters = "confound"
    hold: Hold | None = None

    @property
    def what(self) -> str:
        """``share of sources.mmr1``."""
        return f"{self.quantity} of {self.subject}" if self.subject else self.quantity


class StageDiff(Frozen):
    """``old_name`` is set where a stage was renamed."""

    name: str
    kind: str
    effect: Effect
    why: str = ""
    old_name: str | None = None


class Verdict(Frozen):
    """``text`` is one sentence, the first and the last line of every view."""

    kind: Kind
    text: str


class Price(Frozen):
    """What comparing costs: each from scratch, what B takes over from A, what B costs once A was run.

    ``untimed_a`` and ``untimed_b`` are stages whose time nobody knows: the sums leave them out."""

    a: Totals
    b: Totals
    reused: Totals
    after: Totals
    untimed_a: tuple[str, ...] = ()
    untimed_b: tuple[str, ...] = ()


class RowsOfSource(Frozen):
    """Rows of one source that both have, or one alone; ``why`` counts the rules and stages that took the others out."""

    source: str
    common: int
    only_a: int
    only_b: int
    why_not_b: dict[str, int] = {}  # noqa: RUF012 - pydantic copies it
    why_not_a: dict[str, int] = {}  # noqa: RUF012


class RowsDiff(Frozen):
    """The rows of one stage in the lineage of both."""

    stage: str
    sources: tuple[RowsOfSource, ...]


class Measured(Frozen):
    """A mean with its 95% interval; ``num`` questions, ``seeds`` runs that differ in their seed alone."""

    mean: float
    lo: float | None = None
    hi: float | None = None
    num: int = 0
    seeds: int = 1


class ResultDiff(Frozen):
    """One evaluation of both. ``gain`` is B - A in accuracy: over the same questions where ``paired``.
    ``usd_per_point`` and ``gpu_hours_per_point`` are what a point gained costs: B from scratch less A."""

    stage: str
    benchmark: str
    a: Measured
    b: Measured
    gain: Measured
    paired: bool
    tokens_a: float | None = None
    tokens_b: float | None = None
    usd_per_point: str | None = None
    gpu_hours_per_point: float | None = None


class Diff(Frozen):
    """B against A. ``factors`` decide results, ``others`` do not (speed and meta)."""

    format_version: str = FORMAT_VERSION
    a: str
    b: str
    verdict: Verdict
    factors: tuple[Factor, ...]
    others: tuple[Factor, ...]
    moves: tuple[Move, ...]
    stages: tuple[StageDiff, ...]
    num_same: int
    price: Price
    rows: tuple[RowsDiff, ...] = ()
    results: tuple[ResultDiff, ...] = ()
    exit: Exit = construct(Exit, code=0, reason="ok")

    @property
    def acting(self) -> tuple[Factor, ...]:
        """The factors that make the experiment."""
        return tuple(factor for factor in self.factors if factor.role == "acts")

    @property
    def confounds(self) -> tuple[Move, ...]:
        """What moves beside them and could be taken for their effect."""
        return tuple(move for move in self.moves if move.matters == "confound")

    @property
    def clean(self) -> bool:
        """Whether a difference in the results has one cause."""
        return self.verdict.kind != "not clean"

    @property
    def redo(self) -> tuple[str, ...]:
        """Stages of B that A's artifacts do not serve."""
        due = ("changed", "downstream", "added")
        return tuple(stage.name for stage in self.stages if stage.effect in due)

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all differs."""
        return self.verdict.kind == "no change" and not (self.factors or self.others or self.moves)


class Score(Frozen):
    """What one eval measured, over questions and seeds."""

    stage: str
    accuracy: Measured
    tokens: float | None = None


class Column(Frozen):
    """One recipe of a study; ``values`` are of the study's factors, in their order. ``untimed`` are stages whose time
    nobody knows."""

    name: str
    values: tuple[str, ...]
    scratch: Totals
    marginal: Totals
    untimed: tuple[str, ...] = ()
    scores: tuple[Score, ...] = ()


class Study(Frozen):
    """Several recipes. ``diffs`` are of each against the first; ``order`` runs them so that what is shared is paid once
    and the cheapest comes first: ``marginal`` is what each then adds, ``together`` the sum under one training seed,
    ``under_seeds`` under all of them where there are several. After ``omr ablate``, ``executed``
    stages were run, where each recipe and seed by itself would have taken ``without_sharing``."""

    format_version: str = FORMAT_VERSION
    design: str
    factors: tuple[str, ...]
    columns: tuple[Column, ...]
    diffs: tuple[Diff, ...]
    order: tuple[str, ...]
    together: Totals
    shared_stages: int
    seeds: int = 1
    under_seeds: Totals | None = None
    executed: int | None = None
    without_sharing: int | None = None
    exit: Exit = construct(Exit, code=0, reason="ok")


Number: TypeAlias = Estimate | Money
