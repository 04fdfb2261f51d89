"""A checked recipe to its plan: pins, fingerprints, what is done already, costs, limits.

Apart from ``compiler``, so that a check does not load what it has no use for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path, PurePosixPath

from omrlang import __version__
from omrlang.decisions import Decision, decide
from omrlang.diagnostics import Diagnostic, listed
from omrlang.estimate.costs import estimate
from omrlang.estimate.expectations import shown, verdicts
from omrlang.estimate.simulate import percentile
from omrlang.estimate.totals import totals
from omrlang.hir import Budget, Recipe
from omrlang.lints import lint
from omrlang.lock import lock_of, pinned
from omrlang.lower import Lowered, lower
from omrlang.pins import Pins
from omrlang.plan import (
    Costs,
    Exit,
    Plan,
    PlanCode,
    PlanDiagnostic,
    PlanStage,
    RemovedStage,
    Totals,
)
from omrlang.plan_pins import plan_pins
from omrlang.provenance import placed
from omrlang.references import calls
from omrlang.select import Wanted, check_names, select
from omrlang.state import Index, read_index
from omrlang.types import Verifier, construct

EVERYTHING = Wanted()


def make_plan(
    recipe: Recipe,
    state: Path,
    path: Path,
    found: Sequence[Diagnostic] = (),
    overrides: Sequence[str] = (),
    pins: Pins | None = None,
    wanted: Wanted = EVERYTHING,
) -> Plan:
    """``path`` is the recipe's file as given; ``state`` the folder of earlier runs, which need not exist; ``found`` what
    the front has to say and ``overrides`` what ``--set`` said, which the plan carries on. ``pins`` are for who plans
    often: by default those that the state folder keeps. Raises ``Unselectable`` where ``wanted`` means no stage."""
    pins = pins or Pins.open(recipe.folder, state)
    index = read_index(state)
    lock = lock_of(recipe)
    recipe = pinned(recipe, lock)
    lowered = lower(recipe, pins)
    pins.save()
    costs = estimate(lowered, index, path)
    stages = _plan_stages(recipe, lowered, _decisions(lowered, index, path, wanted), costs, wanted)
    expected = tuple(_expectations(stages, recipe))
    linted = map(plan_diagnostic, [*found, *_revealed(recipe, costs)])
    said = (*linted, *_diagnostics(lowered, index, path), *expected)
    whole = totals(
        costs,
        {stage.name: stage.action if stage.selected else "cached" for stage in stages},
        {stage.name: stage.spec for stage in stages},
    )
    simulated = _simulated(recipe, whole)
    return construct(
        Plan,
        omr_version=__version__,
        recipe=str(path),
        folder=str(recipe.folder.resolve()),
        overrides=tuple(overrides),
        selection=wanted.select,
        forced=wanted.force,
        seed=recipe.seed,
        stages=stages,
        models=recipe.models,
        code=_code(stages),
        pins=plan_pins(lowered, index, path, lock),
        removed=_removed(stages, index, path),
        totals=whole,
        diagnostics=tuple(item for item in said if item.code not in recipe.allowed),
        budget_p50_usd=_dollars(recipe.budget.p50_usd if recipe.budget else None),
        budget_p90_usd=_dollars(recipe.budget.p90_usd if recipe.budget else None),
        complete=whole.not_estimated == 0,
        because=recipe.because,
        usd_p50=simulated[0] if simulated else None,
        usd_p90=simulated[1] if simulated else None,
        exit=_exit(recipe, stages, simulated, any(item.code == "W204" for item in expected)),
    )


def _revealed(recipe: Recipe, costs: Mapping[str, Costs]) -> Iterator[Diagnostic]:
    """What lints find with the costs and did not without."""
    known = {(item.code, item.span) for item in lint(recipe)}
    for item in lint(recipe, costs):
        if (item.code, item.span) not in known:
            yield item


def _decisions(
    lowered: tuple[Lowered, ...], index: Index, path: Path, wanted: Wanted
) -> dict[str, Decision]:
    check_names(lowered, wanted.force, "--force")
    return decide(lowered, index, path, wanted.force)


def _plan_stages(
    recipe: Recipe,
    lowered: tuple[Lowered, ...],
    decisions: Mapping[str, Decision],
    costs: Mapping[str, Costs],
    wanted: Wanted,
) -> tuple[PlanStage, ...]:
    chosen = select(lowered, decisions, wanted.select)
    found: dict[str, PlanStage] = {}
    for stage in lowered:
        made = _plan_stage(stage, decisions[stage.name], costs[stage.name], recipe)
        selected = made.name in chosen
        settled_by = _settled_by(made, found)
        found[made.name] = made.model_copy(update={"selected": selected, "settled_by": settled_by})
    return tuple(found.values())


def _plan_stage(stage: Lowered, decision: Decision, costs: Costs, recipe: Recipe) -> PlanStage:
    return construct(
        PlanStage,
        address=f"{stage.spec.kind}.{stage.name}",
        name=stage.name,
        spec=stage.decided,
        fingerprint=stage.fingerprint,
        parents=stage.parents,
        revision=stage.revision,
        action=decision.action,
        reasons=decision.reasons,
        reason_text=decision.text,
        changes=tuple(placed(change, stage.stage, recipe) for change in decision.changes),
        kept_rows=decision.kept_rows,
        costs=costs,
    )


def _settled_by(stage: PlanStage, before: Mapping[str, PlanStage]) -> str | None:
    """The first stage on the way that chooses among rows and has not run; None where the number of rows is certain."""
    rows = stage.costs.rows_out if stage.costs is not None else None
    if rows is None or rows.lo == rows.hi:
        return None
    above = (before[name].settled_by for name in stage.parents)
    chooses = stage.spec.kind in ("sample", "filter") and stage.action != "cached"
    return next(filter(None, above), stage.name if chooses else None)


def _removed(stages: Sequence[PlanStage], index: Index, path: Path) -> tuple[RemovedStage, ...]:
    """Those of the last run that are not here by name, nor by what they are (then they were renamed)."""
    names = {stage.name for stage in stages}
    marks = {stage.fingerprint for stage in stages}
    return tuple(
        RemovedStage(
            address=f"{record.kind}.{name}" if record else name,
            name=name,
            fingerprint=mark,
            num_rows=record.num_rows if record else None,
        )
        for name, mark in sorted(index.before(path).items())
        for record in [index.stages.get(mark)]
        if name not in names and mark not in marks
    )


def _code(stages: Sequence[PlanStage]) -> tuple[PlanCode, ...]:
    """The code that stages run, each with the stages that run it."""
    runs: dict[Verifier, list[str]] = {}
    for stage in stages:
        for verifier in dict.fromkeys(call.verifier for call in calls(stage.spec) if call.verifier):
            runs.setdefault(verifier, []).append(stage.address)
    return tuple(
        PlanCode(
            entry=verifier.source.entry,
            files=tuple(
                (PurePosixPath(verifier.folder) / file).as_posix() for file in verifier.files
            ),
            sha256=verifier.code,
            stages=tuple(addresses),
        )
        for verifier, addresses in runs.items()
    )


def _diagnostics(
    lowered: tuple[Lowered, ...], index: Index, path: Path
) -> Iterator[PlanDiagnostic]:
    """What could not be read or pinned now."""
    if index.problem is not None:
        yield PlanDiagnostic(
            code="W202", severity="warning", message=index.problem, path=str(path), line=1, column=1
        )
    yield from map(plan_diagnostic, _unpinned(lowered))


def _unpinned(lowered: tuple[Lowered, ...]) -> Iterator[Diagnostic]:
    """Each problem once, at the first stage that has it, however many stages read the same."""
    readers: dict[str, dict[str, Lowered]] = {}
    for stage in lowered:
        for pin in stage.pins:
            if pin.problem is not None:
                readers.setdefault(pin.problem, {})[stage.name] = stage
    for problem, stages in readers.items():
        first, *others = stages.values()
        named = [f"{first.spec.kind} `{first.name}`", *(f"`{other.name}`" for other in others)]
        yield Diagnostic("W201", f"{listed(named, 'and')}: {problem}", first.stage.span, "warning")


def plan_diagnostic(found: Diagnostic) -> PlanDiagnostic:
    """A diagnostic as a plan carries it: its place as line and column."""
    line, column = found.span.file.position(found.span.start)
    return PlanDiagnostic(
        code=found.code,
        severity=found.severity,
        message=found.message,
        path=str(found.span.file.path),
        line=line,
        column=column,
        hint=found.hint,
    )


def _expectations(stages: tuple[PlanStage, ...], recipe: Recipe) -> Iterator[PlanDiagnostic]:
    """What a stage must come out as and, by its estimates, will not or may not."""
    spans = {stage.spec.name: stage for stage in recipe.stages}
    for stage in stages:
        if stage.costs is None:
            continue
        for limit, number, verdict in verdicts(stage.spec.expect, stage.costs):
            if verdict in ("may break", "breaks"):
                provenance = spans[stage.name].settings.get("expect")
                span = provenance.span if provenance and provenance.span else spans[stage.name].span
                code = "W204" if verdict == "breaks" else "W203"
                message = f"{stage.address}: `{limit.text}` {verdict}: {shown(number)}"
                yield plan_diagnostic(Diagnostic(code, message, span, "warning"))


def _simulated(recipe: Recipe, whole: Totals) -> tuple[Decimal, Decimal] | None:
    """What is not exceeded in half and in nine tenths of the cases, where a budget asks and a price is known."""
    if recipe.budget is None or whole.usd.mid is None:
        return None
    p50, p90 = percentile(whole.usd, 0.5, 0.9)
    return Decimal(f"{p50:.2f}"), Decimal(f"{p90:.2f}")


def _over_budget(budget: Budget | None, simulated: tuple[Decimal, Decimal] | None) -> str | None:
    if budget is None or simulated is None:
        return None
    limits = (("p50", budget.p50_usd), ("p90", budget.p90_usd))
    for (name, limit), value in zip(limits, simulated, strict=True):
        if limit is not None and value > _decimal(limit):
            return f"over_budget_{name}"
    return None


def _exit(
    recipe: Recipe,
    stages: tuple[PlanStage, ...],
    simulated: tuple[Decimal, Decimal] | None,
    unexpected: bool,
) -> Exit:
    """0, or 3 where a limit is breached: a stage does not fit, the budget or an expectation does not hold."""
    due = [stage for stage in stages if stage.is_due and stage.costs is not None]
    for stage in due:
        if (
            stage.costs is not None
            and stage.costs.memory is not None
            and stage.costs.memory.verdict == "does not fit"
        ):
            return Exit(code=3, reason="does_not_fit")
    if over := _over_budget(recipe.budget, simulated):
        return Exit(code=3, reason=over)
    return Exit(code=3, reason="unexpected") if unexpected else Exit(code=0, reason="ok")


def _decimal(value: float) -> Decimal:
    return Decimal(str(value))


def _dollars(value: float | None) -> Decimal | None:
    return None if value is None else _decimal(value)
