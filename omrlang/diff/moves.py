"""Pairs of stages become what moves with the factors though nobody wrote it, and which settings were written to hold it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from omrlang.diagnostics import CODES
from omrlang.diff.pairs import Pair
from omrlang.diff.quantities import EVEN, LENGTH, Quantity, quantities
from omrlang.diff.report import Factor, Hold, Matters, Move
from omrlang.diff.shares import share_moves, shares_are_held
from omrlang.plan import Plan, PlanDiagnostic, PlanStage
from omrlang.schema import Eval, Filter, Mix, Sample, Source
from omrlang.types import Count, Hardware, Share, UpTo, construct

MISFITS = frozenset({"W103", "W104", "W105", "W106", "W108", "W109", "W111", "W116", "W118"})
"""Warnings about parts of a recipe that do not fit together: one that only one side has is a second cause."""


def find_moves(pairs: Sequence[Pair], plans: tuple[Plan, Plan]) -> tuple[Move, ...]:
    """In the order of the stages; what concerns no one stage last."""
    found = [move for pair in pairs for move in _of_pair(pair, pairs)]
    return (*found, *_prices(pairs), *_misfits(pairs, plans))


def _of_pair(pair: Pair, pairs: Sequence[Pair]) -> Iterator[Move]:
    if not pair.is_changed:
        return
    yield from _picked(pair)
    if isinstance(pair.b and pair.b.spec, Mix):
        yield from () if shares_are_held(pair) else share_moves(pair)
    if isinstance(pair.b and pair.b.spec, Filter):
        yield from _kept(pair, pairs)
    if isinstance(pair.b and pair.b.spec, Eval):
        yield from _other_questions(pair, pairs)
    held, batch = _holds_length(pair), None
    for quantity in quantities(pair):
        if (move := _move(pair, quantity, held=held)) is None:
            continue
        if move.quantity == "tokens of a batch" and move.matters == "confound":
            batch = move
        yield _after_batch(move, batch)


def _move(pair: Pair, quantity: Quantity, *, held: bool) -> Move | None:
    if written(pair) & quantity.levers:
        return None
    matters: Matters = quantity.matters
    if quantity.old is None or quantity.new is None:
        if matters != "confound" or quantity.name not in ("epochs", "steps"):
            return None
        matters = "unknown"
    elif _even(quantity.old, quantity.new):
        return None
    elif quantity.name == "warm-up steps" and (held or not written(pair) & LENGTH):
        matters = "follows"  # the schedule keeps its shape over a run whose length was held, or moved itself
    return construct(
        Move,
        stage=pair.name,
        quantity=quantity.name,
        subject=quantity.subject,
        old=quantity.old,
        new=quantity.new,
        old_text="?" if quantity.old is None else quantity.shown(quantity.old),
        new_text="?" if quantity.new is None else quantity.shown(quantity.new),
        why=quantity.why,
        matters=matters,
        hold=quantity.hold if matters == "confound" else None,
    )


def _after_batch(move: Move, batch: Move | None) -> Move:
    """Epochs or steps that move exactly as the batch does are no second thing: the batch, once held, holds them."""
    if batch is None or move.quantity not in ("epochs", "steps") or not (move.old and batch.old):
        return move
    times, of_batch = (move.new or 0) / move.old, (batch.new or 0) / batch.old
    if not (_even(times, of_batch) or _even(times * of_batch, 1)):
        return move
    return move.model_copy(update={"matters": "follows", "hold": None})


def _even(old: float, new: float) -> bool:
    return old == new or abs(new - old) < EVEN * max(abs(old), abs(new))


def written(pair: Pair) -> set[str]:
    """The settings of this stage that somebody changed, each also by its first word."""
    paths = {moved.path for moved in pair.own}
    return paths | {path.partition(".")[0] for path in paths if path.startswith("from.")}


# ---- settings that hold ------------------------------------------------------------------------


def with_holding(factors: tuple[Factor, ...], pairs: Sequence[Pair]) -> tuple[Factor, ...]:
    """Settings that were written so that a derived quantity stays are part of the design, not of the experiment.

    Where nothing else acts there is nothing to hold against, and they stay what they are."""
    held = {pair.name: _held(pair) for pair in pairs if pair.is_changed}
    marked = tuple(_marked(factor, held) for factor in factors)
    return marked if any(factor.role == "acts" for factor in marked) else factors


def _marked(factor: Factor, held: dict[str, dict[str, str]]) -> Factor:
    notes = [held.get(stage, {}).get(_lever(factor.path), "") for stage in factor.stages]
    if factor.role != "acts" or not all(notes):
        return factor
    return factor.model_copy(update={"role": "holds", "note": notes[0]})


def _lever(path: str) -> str:
    return "from" if path.startswith("from.") or path in ("from", "total") else path


def _held(pair: Pair) -> dict[str, str]:
    """Settings of this stage that hold something, with what."""
    found: dict[str, str] = {}
    for quantity in quantities(pair):
        levers = written(pair) & quantity.levers
        if quantity.matters != "confound" or quantity.old is None or quantity.new is None:
            continue
        if levers and _even(quantity.old, quantity.new):
            note = f"holds {quantity.name} at {quantity.shown(quantity.old)}"
            found |= dict.fromkeys(levers, note)
    if isinstance(pair.b and pair.b.spec, Mix) and shares_are_held(pair):
        found["from"] = "holds the shares of the mix"
    return found


def _holds_length(pair: Pair) -> bool:
    return bool(LENGTH & _held(pair).keys())


# ---- rows --------------------------------------------------------------------------------------


def _picked(pair: Pair) -> Iterator[Move]:
    """Another seed picks other rows wherever only some are taken."""
    a, b = pair.a, pair.b
    if a is None or b is None or "seed" not in written(pair) or not _takes_some(b):
        return
    yield construct(
        Move,
        stage=pair.name,
        quantity="rows picked",
        old_text=f"by seed {a.spec.seed}",
        new_text=f"by seed {b.spec.seed}",
        why="a subset is the rows with the lowest hash of seed and id; `omr ablate --seeds` varies training alone",
    )


def _takes_some(stage: PlanStage) -> bool:
    match stage.spec:
        case Source(take=int()) | Filter(at_most=object(value=_)):
            return True
        case Mix(parts=parts):
            return any(isinstance(part.amount, Count | Share | UpTo) for part in parts)
        case _:
            return False


def _kept(pair: Pair, pairs: Sequence[Pair]) -> Iterator[Move]:
    """A filter that asks something else, or is asked about other answers, passes another share, which no plan knows."""
    a, b = pair.a, pair.b
    if a is None or b is None or a.costs is None or b.costs is None:
        return
    origins = {a.costs.rows_out.origin, b.costs.rows_out.origin}
    moved = a.spec.assume.keep != b.spec.assume.keep or _share(a) != _share(b)
    if origins == {"measured"} or (moved and origins <= {"measured", "declared"}):
        return
    if why := _why_share(pair, pairs):
        yield construct(
            Move,
            stage=pair.name,
            quantity="share kept",
            old_text=_share(a),
            new_text="?",
            why=why,
            matters="unknown",
        )


def _share(stage: PlanStage) -> str:
    costs = stage.costs
    if costs is None or not costs.rows_in.mid or costs.rows_out.mid is None:
        return "?"
    return f"{costs.rows_out.mid / costs.rows_in.mid:.1%} ({costs.rows_out.origin})"


def _why_share(pair: Pair, pairs: Sequence[Pair]) -> str:
    if any(path == "keep" or path.startswith("keep:") for path in written(pair)):
        return "`keep` asks something else; the plan takes the share that is declared or assumed"
    names = set(pair.b.parents if pair.b is not None else ())
    for other in pairs:
        if other.name in names and isinstance(other.b and other.b.spec, Sample):
            named = [
                m.path
                for m in other.own
                if m.change().cls == "rows" and m.path not in ("n", "seed")
            ]
            if named:
                asked = named[0].partition(".")[0]
                return f"`{asked}` of {other.name} changed, and with it how many answers are right"
    return ""


def _other_questions(pair: Pair, pairs: Sequence[Pair]) -> Iterator[Move]:
    """An evaluation whose rows changed along with its model compares two things at once."""
    changed = {other.name for other in pairs if other.is_changed}
    others = _with_other_rows(pairs)
    spec = pair.b.spec if pair.b is not None else None
    assert isinstance(spec, Eval), "only evaluations come here"
    rows = [name for name in spec.rows if name in others]
    model = getattr(spec.model, "stage", None)
    if rows and model in changed and "from" not in written(pair):
        counts = [_questions(stage) for stage in (pair.a, pair.b)]
        yield construct(
            Move,
            stage=pair.name,
            quantity="evaluation set",
            old_text=counts[0],
            new_text=counts[1] if counts[0] != counts[1] else f"{counts[1]}, others",
            why=f"{', '.join(rows)} changed; rows that no factor touches would compare",
        )


def _with_other_rows(pairs: Sequence[Pair]) -> set[str]:
    """Stages that hold other rows, and not only another fingerprint because of a seed that picks nothing."""
    found: set[str] = set()
    for pair in pairs:
        if pair.b is None or not pair.is_changed:
            continue
        picks = "seed" in written(pair) and _takes_some(pair.b)
        if written(pair) - {"seed"} or picks or found & set(pair.b.parents):
            found.add(pair.name)
    return found


def _questions(stage: PlanStage | None) -> str:
    rows = stage.costs.rows_in.mid if stage is not None and stage.costs is not None else None
    return "?" if rows is None else f"{rows:,.0f} questions"


# ---- the recipe as a whole ---------------------------------------------------------------------


def _prices(pairs: Sequence[Pair]) -> Iterator[Move]:
    """Hours of one machine at two prices: dollars do not compare, results do."""
    told = set()
    for pair in pairs:
        old, new = (_price(stage) for stage in (pair.a, pair.b))
        if old is None or new is None or old == new or (old, new) in told:
            continue
        told.add((old, new))
        machine = _machine(pair.b)
        yield construct(
            Move,
            stage=pair.name,
            quantity="price",
            old=old,
            new=new,
            old_text=f"${old:.2f} / GPU-hour",
            new_text=f"${new:.2f} / GPU-hour",
            why="it is rented from another place or on another day",
            matters="cost",
            hold=machine
            and construct(Hold, stage=machine.name, key="price", value=f"${old:.2f} / gpu_hour"),
        )


def _price(stage: PlanStage | None) -> float | None:
    machine = _machine(stage)
    if machine is None or machine.gpu is None:
        return None
    own, listed = machine.usd_per_gpu_hour, machine.gpu.usd_per_gpu_hour
    return own if own is not None else listed


def _machine(stage: PlanStage | None) -> Hardware | None:
    found: Hardware | None = getattr(stage.spec, "hardware", None) if stage is not None else None
    return found


def _misfits(pairs: Sequence[Pair], plans: tuple[Plan, Plan]) -> Iterator[Move]:
    """Parts that fit together on one side and not on the other. Stages of one side alone go by no name; an evaluation
    of one side alone compares nothing, and what does not fit it does not count."""
    names = [{stage.name for stage in plan.stages} for plan in plans]
    lone = [(p.a or p.b, p.name) for p in pairs if p.a is None or p.b is None]
    alone = {name for stage, name in lone if stage is not None and stage.spec.kind == "eval"}
    old, new = (
        _warned(plan, own, alone)
        for plan, own in zip(plans, (names[0] - names[1], names[1] - names[0]), strict=True)
    )
    for message in [*(m for m in new if m not in old), *(m for m in old if m not in new)]:
        item = new.get(message) or old[message]
        yield construct(
            Move,
            stage="",
            quantity=CODES[item.code].slug.replace("-", " "),
            old_text="does not fit" if message in old else "fits",
            new_text="does not fit" if message in new else "fits",
            why=f"{item.message} ({item.code})",
        )


def _warned(plan: Plan, own: set[str], alone: set[str]) -> dict[str, PlanDiagnostic]:
    found: dict[str, PlanDiagnostic] = {}
    for item in plan.diagnostics:
        named = item.message.split("`")
        if item.code in MISFITS and not alone & set(named):
            words = (word for word in named if word not in own)
            found.setdefault(f"{item.code} {'`'.join(words)}", item)
    return found
