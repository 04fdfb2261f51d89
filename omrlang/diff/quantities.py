"""A stage of two plans becomes the quantities that its settings and its rows decide together: steps, epochs, updates.

Each knows the settings that set it (``levers``): where one of them was written, a move is somebody's decision; where none
was, it is hidden, and where one was and the quantity stands still, the setting holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from omrlang.diff.pairs import Pair
from omrlang.diff.report import Hold, Matters
from omrlang.plan import PlanStage
from omrlang.schema import Rl, Sft
from omrlang.settle import num_devices, ratio_is_one, settled_amount, updates_per_batch
from omrlang.types import construct

Numbers: TypeAlias = tuple[float | None, float | None]
LENGTH = frozenset({"steps", "epochs"})
EVEN = 0.02
"""Numbers within two percent of each other are the same."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """``old`` and ``new`` are None where the plan does not know."""

    name: str
    old: float | None
    new: float | None
    levers: frozenset[str]
    why: str
    shown: Callable[[float], str] = field(default=lambda value: f"{value:,.0f}")
    hold: Hold | None = None
    matters: Matters = "confound"
    subject: str = ""


def quantities(pair: Pair) -> Iterator[Quantity]:
    """Causes before what follows from them."""
    a, b = pair.a, pair.b
    if a is None or b is None:
        return
    match a.spec, b.spec:
        case Sft() as old, Sft() as new:
            yield from _batch(a, b, old, new)
            yield from _length(pair, a, b, old, new)
            yield from _schedule(a, b, old, new)
            yield from _seen(a, b)
        case Rl() as old, Rl() as new:
            yield _updates(b.name, old, new)
            yield from _length(pair, a, b, old, new)
            yield from _schedule(a, b, old, new)
            yield from _rollouts(a, b)
        case _:
            yield from _asked(a, b)


# ---- numbers of one stage ----------------------------------------------------------------------


def known(stage: PlanStage, name: str) -> float | None:
    """The middle of an estimate beside the common ones."""
    found = stage.costs.extra.get(name) if stage.costs is not None else None
    return found.mid if found is not None else None


def epochs(stage: PlanStage) -> float | None:
    """Passes over the rows."""
    spec, costs = stage.spec, stage.costs
    if isinstance(spec, Rl):
        steps, rows = known(stage, "steps"), costs.rows_in.mid if costs is not None else None
        batch = settled_amount(spec.batch, num_devices(spec)).value
        return steps * batch / rows if steps and rows else None
    return known(stage, "epochs")


def batch_tokens(stage: PlanStage, spec: Sft) -> float | None:
    """Tokens of one optimiser step: packs x pack, or rows x tokens of a row."""
    batch = settled_amount(spec.batch, num_devices(spec))
    if batch.unit != "rows":
        return batch.value * spec.pack
    each = known(stage, "tokens_per_row")
    return batch.value * each if each else None


def _batch_of(stage: PlanStage) -> float | None:
    """What one step takes: tokens, or prompts."""
    if isinstance(stage.spec, Sft):
        return batch_tokens(stage, stage.spec)
    assert isinstance(stage.spec, Rl), "only what trains has steps"
    return settled_amount(stage.spec.batch, num_devices(stage.spec)).value


def warmup_steps(stage: PlanStage) -> float | None:
    assert isinstance(stage.spec, Sft | Rl), "only what trains warms up"
    warmup, steps = stage.spec.lr.warmup, known(stage, "steps")
    if warmup.unit != "fraction":
        return warmup.value
    return warmup.value * steps if steps else None


# ---- training ----------------------------------------------------------------------------------


def _batch(a: PlanStage, b: PlanStage, old: Sft, new: Sft) -> Iterator[Quantity]:
    devices = num_devices(old), num_devices(new)
    in_packs = settled_amount(new.batch, 1).unit != "rows"
    before, after = batch_tokens(a, old), batch_tokens(b, new)
    why = "the rows are of another length"
    if " / " in new.batch.unit and devices[0] != devices[1]:
        why = f"the batch is counted for each of the GPUs, {devices[0]} before and {devices[1]} now"
    elif old.pack != new.pack:
        why = f"a pack has {new.pack:,} tokens instead of {old.pack:,}"
    hold = None
    packs = before / new.pack if in_packs and before else 0
    if packs and packs % devices[1] == 0:  # every GPU has the same work
        hold = construct(
            Hold, stage=b.name, key="batch", value=f"{packs:g} pack{'' if packs == 1 else 's'}"
        )
    yield Quantity(
        "tokens of a batch",
        before,
        after,
        frozenset({"batch"}),
        why,
        hold=hold,
        matters="confound" if in_packs else "follows",
    )


def _length(
    pair: Pair, a: PlanStage, b: PlanStage, old: Sft | Rl, new: Sft | Rl
) -> Iterator[Quantity]:
    """What is not fixed is derived: epochs at fixed steps, steps at fixed epochs. Written anew, either may be held."""
    if "steps" in {*old.unpublished, *new.unpublished}:
        yield Quantity("epochs", None, None, LENGTH, "nobody published the steps")
        return
    longer = _longer(pair, a, b)
    passes, steps = (epochs(a), epochs(b)), (known(a, "steps"), known(b, "steps"))
    by_steps = new.steps is not None
    if by_steps or old.steps is not None:
        passes = passes[0], passes[1] and passes[1] * longer
        value = None
        if by_steps and new.steps and passes[0] and passes[1]:
            value = f"{max(1, round(new.steps * passes[0] / passes[1])):_}"
        hold = construct(Hold, stage=b.name, key="steps", value=value) if value else None
        why = _why_length("steps are fixed", pair, a, b)
        yield Quantity("epochs", *passes, LENGTH, why, lambda v: f"{v:.2g}", hold)
    if (not by_steps or old.steps is None) and not _same_unknown(pair, a, b):
        steps = steps[0], steps[1] and max(1.0, steps[1] / longer)
        value = f"{max(1, round(steps[0])):_}" if steps[0] else None
        hold = construct(Hold, stage=b.name, key="steps", value=value) if value else None
        why = _why_length("epochs are fixed", pair, a, b)
        yield Quantity("steps", *steps, LENGTH, why, hold=hold)


def _longer(pair: Pair, a: PlanStage, b: PlanStage) -> float:
    """By how much the plan takes B's rows to be longer only because something else was declared of their length."""
    each = known(a, "tokens_per_row"), known(b, "tokens_per_row")
    return each[1] / each[0] if pair.told_apart and each[0] and each[1] else 1.0


def _same_unknown(pair: Pair, a: PlanStage, b: PlanStage) -> bool:
    """Whether nobody knows how many rows there are, and they are the same rows in the same batches all the same."""
    batches = _batch_of(a), _batch_of(b)
    other_rows = any(moved.path.partition(".")[0] == "from" for moved in pair.moved)
    return known(a, "steps") is None and not other_rows and batches[0] == batches[1]


def _why_length(fixed: str, pair: Pair, a: PlanStage, b: PlanStage) -> str:
    """Which of batch, rows and their length moved."""
    rows = tuple(stage.costs.rows_in.mid if stage.costs is not None else None for stage in (a, b))
    each = known(a, "tokens_per_row"), known(b, "tokens_per_row")
    batches = _batch_of(a), _batch_of(b)
    causes = [
        _cause(batches, "each step takes {} of the rows", ("more", "less")),
        _cause(rows, "there are {} rows to pass over", ("more", "fewer")),
        "" if pair.told_apart else _cause(each, "rows are {}", ("longer", "shorter")),
    ]
    said = [cause for cause in causes if cause] or ["how many rows there are is not known"]
    return " and ".join([", ".join([fixed, *said[:-1]]), said[-1]])


def _cause(numbers: Sequence[float | None], text: str, words: tuple[str, str]) -> str:
    old, new = numbers
    if not old or not new or abs(new - old) < EVEN * max(old, new):
        return ""
    return text.format(words[0] if new > old else words[1])


def _schedule(a: PlanStage, b: PlanStage, old: Sft | Rl, new: Sft | Rl) -> Iterator[Quantity]:
    """A warm-up in percent is another number of steps in a longer run; a decay ends where the run ends."""
    before, after = warmup_steps(a), warmup_steps(b)
    if new.lr.warmup.unit == "fraction" or old.lr.warmup.unit == "fraction":
        value = f"{round(before)} steps" if before else None
        hold = construct(Hold, stage=b.name, key="lr.warmup", value=value) if value else None
        why = "the warm-up is a share of the steps"
        levers = frozenset({"lr", "lr.warmup", "lr.kind"})
        yield Quantity("warm-up steps", before, after, levers, why, hold=hold)
    if new.lr.kind != "constant":
        why = f"the {new.lr.kind} schedule ends where the run ends"
        ends = known(a, "steps"), known(b, "steps")
        yield Quantity("last step of the schedule", *ends, LENGTH | {"lr"}, why, matters="follows")


def _seen(a: PlanStage, b: PlanStage) -> Iterator[Quantity]:
    """Tokens that go through the trainer, in all and by source."""
    before, after = _tokens(a), _tokens(b)
    levers = LENGTH | {"batch", "pack"}
    why = "rows, steps and batch decide it"
    yield Quantity("tokens seen", before, after, levers, why, _big, matters="follows")
    old, new = _by_source(a, before), _by_source(b, after)
    for name in old:
        if name in new:
            yield Quantity(
                "tokens seen",
                old[name],
                new[name],
                levers,
                "its share of the rows, times the tokens seen",
                _big,
                matters="follows",
                subject=name,
            )


def _tokens(stage: PlanStage) -> float | None:
    return stage.costs.tokens.mid if stage.costs is not None else None


def _by_source(stage: PlanStage, tokens: float | None) -> dict[str, float]:
    """By the rows of each source, taken to be equally long."""
    sources = stage.costs.rows_by_source if stage.costs is not None else {}
    rows = {name: item.mid for name, item in sources.items()}
    whole = sum(count or 0.0 for count in rows.values())
    if not tokens or not whole or any(count is None for count in rows.values()):
        return {}
    return {name: tokens * (count or 0.0) / whole for name, count in rows.items()}


def _big(value: float) -> str:
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:,.0f}"


def _updates(stage: str, old: Rl, new: Rl) -> Quantity:
    before, after = updates_per_batch(old), updates_per_batch(new)
    prompts = settled_amount(new.batch, num_devices(new)).value / before
    why = "the batch changed and the minibatch did not"
    if ratio_is_one(old) and not ratio_is_one(new):
        why += "; from two updates on, the clip range acts"
    hold = construct(Hold, stage=stage, key="minibatch", value=f"{prompts:g} prompts")
    levers = frozenset({"minibatch"})
    return Quantity(
        "updates of a rollout batch", before, after, levers, why, lambda v: f"{v:g}", hold
    )


def _rollouts(a: PlanStage, b: PlanStage) -> Iterator[Quantity]:
    levers = LENGTH | {"batch", "group"}
    counts = known(a, "rollouts"), known(b, "rollouts")
    yield Quantity(
        "rollouts", *counts, levers, "steps, prompts and group decide it", _big, matters="follows"
    )


# ---- sampling and evaluation -------------------------------------------------------------------


def _asked(a: PlanStage, b: PlanStage) -> Iterator[Quantity]:
    if b.spec.kind in ("sample", "eval") and a.costs is not None and b.costs is not None:
        rows = a.costs.rows_in.mid, b.costs.rows_in.mid
        name = "questions asked" if b.spec.kind == "sample" else "questions of the evaluation"
        yield Quantity(
            name, *rows, frozenset({"from"}), "the rows before it changed", matters="follows"
        )
