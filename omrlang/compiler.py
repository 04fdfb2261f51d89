"""A recipe's path to its checked form and its plan; the order of the passes stands here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from omrlang import __version__
from omrlang.check import check
from omrlang.diagnostics import Diagnostic, Reporter
from omrlang.estimate.costs import estimate, totals
from omrlang.hir import Recipe
from omrlang.lints import lint
from omrlang.lower import Lowered, lower
from omrlang.parse import parse
from omrlang.pins import Pins
from omrlang.plan import Costs, Exit, Plan, PlanDiagnostic, PlanStage, Totals
from omrlang.resolve import read_source, resolve
from omrlang.state import Decision, Index, decide, read_index


def load(
    path: Path, overrides: Sequence[str] = (), deny: Collection[str] = ()
) -> tuple[Recipe | None, list[Diagnostic]]:
    """Read, parse, resolve, check, lint. The recipe is None exactly if a diagnostic is an error.

    ``overrides`` are ``path=value``; ``deny`` are codes of warnings that count as errors.
    """
    reporter = Reporter()
    source = read_source(path, path, None, reporter)
    if source is None:
        return None, reporter.sorted()
    tree = parse(source, reporter)
    scope = resolve(tree, path.resolve().parent, reporter, overrides)
    recipe = check(scope, reporter)
    if recipe is not None:
        for found in lint(recipe, scope.allowed, deny):
            reporter.report(found)
    return None if reporter.has_errors else recipe, reporter.sorted()


def make_plan(
    recipe: Recipe,
    state: Path,
    path: Path,
    found: Sequence[Diagnostic] = (),
    overrides: Sequence[str] = (),
) -> Plan:
    """``path`` is the recipe's file as given; ``state`` the folder of earlier runs, which need not exist; ``found`` what
    the front has to say and ``overrides`` what ``--set`` said, which the plan carries on."""
    pins = Pins.open(recipe.folder, state)
    index = read_index(state)
    lowered = lower(recipe, pins)
    pins.save()
    costs = estimate(lowered, index, path)
    stages = _plan_stages(lowered, index, path, costs)
    whole = totals(
        costs,
        {stage.name: stage.action for stage in stages},
        {stage.name: stage.spec for stage in stages},
    )
    return Plan(
        omr_version=__version__,
        recipe=str(path),
        folder=str(recipe.folder.resolve()),
        overrides=tuple(overrides),
        seed=recipe.seed,
        stages=stages,
        models=recipe.models,
        removed=index.removed(path, frozenset(stage.name for stage in stages)),
        totals=whole,
        diagnostics=(*map(plan_diagnostic, found), *_diagnostics(lowered, index, path)),
        budget_p50_usd=_dollars(recipe.budget.p50_usd if recipe.budget else None),
        budget_p90_usd=_dollars(recipe.budget.p90_usd if recipe.budget else None),
        complete=whole.not_estimated == 0,
        exit=_exit(recipe, stages, whole),
    )


def _plan_stages(
    lowered: tuple[Lowered, ...], index: Index, path: Path, costs: Mapping[str, Costs]
) -> tuple[PlanStage, ...]:
    fingerprints = {stage.name: stage.fingerprint for stage in lowered}
    made: dict[str, str] = {}
    found = []
    for stage in lowered:
        decision = decide(stage, index, path, fingerprints)
        twin = made.setdefault(stage.fingerprint, stage.name)
        if twin != stage.name:
            decision = Decision("cached", (), f"the same as {twin}")
        found.append(_plan_stage(stage, decision, costs[stage.name]))
    return tuple(found)


def _plan_stage(stage: Lowered, decision: Decision, costs: Costs) -> PlanStage:
    return PlanStage(
        address=f"{stage.spec.kind}.{stage.name}",
        name=stage.name,
        spec=stage.decided,
        fingerprint=stage.fingerprint,
        parents=stage.parents,
        revision=stage.revision,
        action=decision.action,
        reasons=decision.reasons,
        reason_text=decision.text,
        changes=decision.changes,
        costs=costs,
    )


def _diagnostics(
    lowered: tuple[Lowered, ...], index: Index, path: Path
) -> Iterator[PlanDiagnostic]:
    """What could not be pinned now, at the stage that needs it."""
    if index.problem is not None:
        yield PlanDiagnostic(
            code="W202", severity="warning", message=index.problem, path=str(path), line=1, column=1
        )
    for stage in lowered:
        for pin in stage.pins:
            if pin.problem is not None:
                message = f"{stage.spec.kind} `{stage.name}`: {pin.problem}"
                yield plan_diagnostic(Diagnostic("W201", message, stage.stage.span, "warning"))


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


def _exit(recipe: Recipe, stages: tuple[PlanStage, ...], whole: Totals) -> Exit:
    """0, or 3 where a limit is breached: a stage that is due does not fit, or the budget is exceeded."""
    due = [stage for stage in stages if stage.action != "cached" and stage.costs is not None]
    for stage in due:
        if (
            stage.costs is not None
            and stage.costs.memory is not None
            and stage.costs.memory.verdict == "does not fit"
        ):
            return Exit(code=3, reason="does_not_fit")
    budget = recipe.budget
    if (
        budget is not None
        and budget.p50_usd is not None
        and whole.usd.mid is not None
        and whole.usd.mid > _decimal(budget.p50_usd)
    ):
        return Exit(code=3, reason="over_budget_p50")
    if (
        budget is not None
        and budget.p90_usd is not None
        and whole.usd.hi is not None
        and whole.usd.hi > _decimal(budget.p90_usd)
    ):
        return Exit(code=3, reason="over_budget_p90")
    return Exit(code=0, reason="ok")


def _decimal(value: float) -> Decimal:
    return Decimal(str(value))


def _dollars(value: float | None) -> Decimal | None:
    return None if value is None else _decimal(value)
