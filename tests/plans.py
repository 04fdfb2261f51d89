"""Plans built by hand, for tests of the runtime that need no compiler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omr_runtime.identity import digest
from omr_runtime.order import row_sets
from omr_runtime.store import State, read_index
from omrlang.plan import Estimate, Money, Plan, PlanStage, Totals
from omrlang.schema import Eval, Filter, Mix, Rl, Sample, Sft, Source, Spec
from omrlang.types import (
    All,
    Col,
    ExprNode,
    Fresh,
    Jsonl,
    MixAmount,
    MixPart,
    Model,
    Place,
    Prompt,
    RowExpr,
    Rule,
    Scripted,
    Synthetic,
    TrainedModel,
)

NOTHING = Estimate(lo=None, mid=None, hi=None, unit="", origin="unknown")
PROMPT = Prompt(name="short")
TEACHER = Model(name="teacher", source=Scripted(name="shapes", right=0.7))
TINY = Model(
    name="tiny",
    source=Fresh(
        family="qwen2_5_vl", layers=1, hidden=32, heads=2, vision_layers=1, vision_hidden=32
    ),
    precision="fp32",
    vision=True,
)


def column(name: str) -> RowExpr:
    """The expression that is one column."""
    return expression(Col(name=name), name)


def expression(tree: ExprNode, text: str) -> RowExpr:
    return RowExpr(text=text, type="any", tree=tree, rules=(Rule(name=text, tree=tree),))


def source(name: str, place: Place | str, seed: int = 7, **settings: object) -> Source:
    where = Jsonl(path=place) if isinstance(place, str) else place
    return Source.model_validate({"name": name, "seed": seed, "place": where, **settings})


def shapes(name: str, n: int, seed: int = 3, **settings: Any) -> Source:
    return source(name, Synthetic(name="shapes", n=n, seed=seed), **settings)


def mix(
    name: str, parts: dict[str, MixAmount] | Sequence[str], seed: int = 7, **settings: object
) -> Mix:
    pairs = parts.items() if isinstance(parts, dict) else [(part, All()) for part in parts]
    rows = tuple(MixPart(rows=part, amount=amount) for part, amount in pairs)
    return Mix.model_validate({"name": name, "seed": seed, "parts": rows, **settings})


def parents(spec: Spec) -> tuple[str, ...]:
    """The stages that a stage names."""
    model = getattr(spec, "model", None)
    return (
        *dict.fromkeys(row_sets(spec)),
        *((model.stage,) if isinstance(model, TrainedModel) else ()),
    )


def plan(specs: Sequence[Spec], state: Path, folder: Path, seed: int = 7) -> Plan:
    """A plan whose actions say what the state's index has; fingerprints are of specs, parents and local files."""
    index = read_index(State(state))["stages"]
    fingerprints: dict[str, str] = {}
    stages = []
    for spec in specs:
        revision = _revision(spec, folder)
        mark = digest(
            spec.model_dump_json(exclude={"name"}),
            [fingerprints[p] for p in parents(spec)],
            revision,
        )
        fingerprints[spec.name] = mark
        entry = index.get(mark, {})
        done = entry.get("status") == "done" and entry.get("files_ok", True)
        corrupt = entry.get("status") == "done" and not done
        stages.append(
            PlanStage(
                address=f"{spec.kind}.{spec.name}",
                name=spec.name,
                spec=spec,
                fingerprint=mark,
                parents=parents(spec),
                revision=revision,
                action="cached" if done else "redo" if corrupt else "partial" if entry else "new",
                reasons=("cache_corrupt",) if corrupt else (),
            )
        )
    totals = Totals(
        rows_sampled=NOTHING,
        tokens=NOTHING,
        seconds=NOTHING,
        gpu_hours=NOTHING,
        usd=Money(lo=None, mid=None, hi=None, origin="unknown"),
        not_estimated=0,
    )
    return Plan(
        omr_version="0",
        recipe="test.omr",
        folder=str(folder),
        seed=seed,
        stages=tuple(stages),
        models=(),
        totals=totals,
    )


def _revision(spec: Spec, folder: Path) -> str | None:
    path = getattr(getattr(spec, "place", None), "path", None)
    file = folder / path if path else None
    return digest(file.read_bytes().hex()) if file is not None and file.is_file() else None


__all__ = ["Eval", "Filter", "Rl", "Sample", "Sft"]
