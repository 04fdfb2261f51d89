"""What the past holds and what is asked for become what is to be done for each stage, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omrlang.changes import Moved, compare
from omrlang.fingerprint import deciding_classes
from omrlang.leaves import Leaf, leaves
from omrlang.lower import Lowered
from omrlang.plan import Action, Change, Reason
from omrlang.schema import Sample
from omrlang.state import Index, Previous, Record, old_spec

KEEPS_SAMPLES = ("n", "from")
"""What of a ``sample`` may move while samples that were drawn stay what they are: they are kept by question and index."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done for a stage and why; ``kept_rows`` need not be made again."""

    action: Action
    reasons: tuple[Reason, ...] = ()
    text: str = ""
    changes: tuple[Change, ...] = ()
    kept_rows: int | None = None


def decide(
    stages: Sequence[Lowered], index: Index, recipe: Path, forced: Collection[str] = ()
) -> dict[str, Decision]:
    """A decision for each stage by name. ``forced`` are made again, and whatever stands on them."""
    marks = {stage.name: stage.fingerprint for stage in stages}
    first: dict[str, str] = {}
    again: set[str] = set()
    found = {}
    for stage in stages:
        twin = first.setdefault(stage.fingerprint, stage.name)
        remade = [name for name in stage.parents if name in again]
        if twin != stage.name:
            decision = Decision("cached", (), f"the same as {twin}")
        else:
            decision = _decide_alone(stage, index, recipe, marks)
            if stage.name in forced:
                decision = _made_again(decision, "forced", "asked for")
            elif remade:
                told = f"{', '.join(remade)} {'is' if len(remade) == 1 else 'are'} made again"
                decision = _made_again(decision, "parent_changed", told)
        if stage.name in forced or remade or twin in again:
            again.add(stage.name)
        found[stage.name] = decision
    return found


def _made_again(decision: Decision, reason: Reason, told: str) -> Decision:
    """What is there, whole or in part, is made again; what is not there is made anyway."""
    if decision.action in ("cached", "partial"):
        return Decision("redo", (reason,), told)
    return decision


def _decide_alone(stage: Lowered, index: Index, recipe: Path, marks: Mapping[str, str]) -> Decision:
    """Whether a stage's artifact is there, partly there, or what made it another."""
    record = index.stages.get(stage.fingerprint)
    if record is not None:
        return _decide_known(record)
    last = index.last(recipe, stage.name)
    if last is None:
        return Decision("new", ("new",), "new")
    if last == stage.fingerprint:
        return Decision("new", ("cache_missing",), "planned before, not there yet")
    previous = index.previous.get(last)
    if previous is None:
        return Decision("redo", ("cache_missing",), "what it was made of is no longer known")
    return _decide_moved(stage, previous, marks, index.stages.get(last))


def _decide_known(record: Record) -> Decision:
    """What the index says of this very fingerprint."""
    if record.status == "done" and record.files_ok:
        return Decision("cached", (), "done", kept_rows=record.num_rows)
    if record.status == "done":
        told = "files of the finished stage are missing or damaged"
        return Decision("redo", ("cache_corrupt",), told)
    progress = _progress(record)
    reasons: tuple[Reason, ...] = ("partial_cache",) if progress else ()
    if record.status == "failed":
        told = f"failed last time{f', {progress} kept' if progress else ''}"
        action: Action = "partial" if progress else "new"
        return Decision(action, ("previous_run_failed", *reasons), told, (), record.num_rows)
    if progress:
        return Decision("partial", reasons, f"{progress} done, goes on there", (), record.num_rows)
    return Decision("new", ("cache_missing",), "begun, nothing finished yet")


def _progress(record: Record) -> str:
    if record.steps_done:
        return f"{record.steps_done:,} steps"
    if record.num_shards:
        rows = f" ({record.num_rows:,} rows)" if record.num_rows else ""
        return f"{record.num_shards:,} shard{'s' if record.num_shards != 1 else ''}{rows}"
    return ""


# ---- what moved ----------------------------------------------------------------------------------------------------


def _decide_moved(
    stage: Lowered, previous: Previous, marks: Mapping[str, str], record: Record | None
) -> Decision:
    """The stage is not what it was in the last run. Settings are told first, since they are what a person changed."""
    spec = old_spec(previous)
    if spec is not None and spec.kind != stage.spec.kind:
        kind = Change(path="kind", cls="rows", old=spec.kind, new=stage.spec.kind)
        return Decision("redo", ("param_changed",), f"was a {spec.kind} before", (kind,))
    moved = _moved(stage, previous, marks)
    if not moved:
        told = "made by a version of omr that took its settings otherwise"
        return Decision("redo", ("code_version_changed",), told)
    changes = tuple(item.change() for item in moved)
    own = [item for item in moved if item.reason != "parent_changed"]
    parents = {item.new.parent: None for item in moved if item not in own and item.new is not None}
    texts = [_told(item) for item in own]
    if parents:
        texts.append(f"{', '.join(filter(None, parents))} changed")
    reasons = tuple(dict.fromkeys(item.reason for item in [*own, *_others(moved, own)]))
    if kept := _samples_kept(stage, moved, record):
        told = "; ".join([*texts, kept.text])
        return replace(kept, reasons=(*reasons, "partial_cache"), text=told, changes=changes)
    return Decision("redo", reasons, "; ".join(texts), changes)


def _others(moved: Sequence[Moved], own: Sequence[Moved]) -> Iterator[Moved]:
    return (item for item in moved if item not in own)


def _moved(stage: Lowered, previous: Previous, marks: Mapping[str, str]) -> tuple[Moved, ...]:
    """The leaves that matter and differ; what is read from outside by its own name where the last run left it."""
    spec = old_spec(previous)
    if spec is None:
        return ()
    try:
        before = leaves(spec, previous.parents, previous.revision)
    except KeyError:
        return ()
    after = leaves(stage.decided, marks, stage.revision)
    found = compare(before, after, deciding_classes(stage.spec))
    read = tuple(_read_otherwise(stage, previous))
    return (*read, *(item for item in found if not read or item.path != "revision"))


def _read_otherwise(stage: Lowered, previous: Previous) -> Iterator[Moved]:
    """Each thing outside the recipe that is not what the last run read under that name."""
    reasons: dict[str, Reason] = {
        "data": "source_revision_changed",
        "model": "model_revision_changed",
    }
    for pin in stage.pins:
        was = previous.pins.get(pin.what)
        if was is not None and was != pin.revision:
            old, new = (
                Leaf("revision", pin.what, value, (value or "unknown")[:12], "rows")
                for value in (was, pin.revision)
            )
            yield Moved(reasons[pin.kind], pin.what, old, new)


def _samples_kept(stage: Lowered, moved: Sequence[Moved], record: Record | None) -> Decision | None:
    """Where only the questions or ``n`` of a ``sample`` moved, samples that were drawn are not drawn again."""
    if not isinstance(stage.spec, Sample) or record is None or not record.num_rows:
        return None
    if any(item.path not in KEEPS_SAMPLES for item in moved):
        return None
    if [item.path for item in moved] == ["n"]:
        return Decision("partial", (), f"{record.num_rows:,} samples are kept", (), record.num_rows)
    return Decision("partial", (), "samples of the same questions are kept")


def _told(item: Moved) -> str:
    change = item.change()
    match item.reason:
        case "source_revision_changed" | "model_revision_changed":
            return f"{change.path} changed: {change.old} -> {change.new}"
        case "code_version_changed" if item.path == "version":
            return f"this kind of stage works differently now ({change.old} -> {change.new})"
        case "code_version_changed":
            return f"{change.path} changed"
        case _ if change.old == change.new:
            return f"what {change.path} asks changed"
        case _:
            return f"{change.path} {change.old} -> {change.new}"
