"""A state folder -> what in it nobody needs any more, and the folder without it.

Alone decides what is needed: every artifact that a recipe has now, that the newest run of a recipe has, and all that
those stand on. An artifact is first forgotten, then renamed, then deleted: a kill on the way leaves nothing that could be
taken for whole, and the next call goes on.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from omr_runtime.errors import DamagedArtifact
from omr_runtime.record import Record
from omr_runtime.store import MEDIA, State
from omr_runtime.work import Shards
from omrlang.plan import Plan

_FINGERPRINT = re.compile(r"[0-9a-f]{32}")
_DOOMED = ".gone-"


@dataclass(frozen=True, slots=True)
class Item:
    """Something to delete: ``what`` as a person knows it, its paths, and the fingerprint of an artifact."""

    kind: str
    what: str
    paths: tuple[Path, ...]
    num_bytes: int
    fingerprint: str | None = None


# ---- what is needed --------------------------------------------------------------------------------------------


def needed(state: State, index: dict[str, Any], now: Iterable[Plan] = ()) -> set[str]:
    """Fingerprints that are to stay. ``now`` are plans of the recipes as they stand."""
    wanted = set(index["names"].values())
    for plan in (*now, *_newest_plans(state)):
        wanted |= {stage.fingerprint for stage in plan.stages}
    return _with_parents(index, wanted)


def _newest_plans(state: State) -> Iterator[Plan]:
    """The plan of each recipe's newest run, and of a study's newest run of each set of seeds."""
    newest: dict[object, Plan] = {}
    for path in sorted(state.plans.glob("*-*-*.json")):
        try:
            plan = Plan.model_validate_json(path.read_bytes())
        except ValidationError:
            continue  # of another version of omr: a plan of this one would make everything anew
        seeds = tuple((stage.name, stage.spec.seed) for stage in plan.stages)
        newest[plan.recipe, plan.folder, seeds] = plan
    yield from newest.values()


def _with_parents(index: dict[str, Any], marks: set[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(marks)
    while waiting:
        mark = waiting.pop()
        if mark not in found:
            found.add(mark)
            waiting += index["previous"].get(mark, {}).get("parents", {}).values()
    return found


# ---- what is not -----------------------------------------------------------------------------------------------


def unneeded(
    state: State, index: dict[str, Any], keep: set[str], *, samples: bool = False
) -> list[Item]:
    """What nobody needs, artifacts first. ``samples``: the samples too that only such artifacts were made of."""
    gone = sorted((set(index["stages"]) | set(_folders(state))) - keep)
    items = [_artifact(state, index, mark) for mark in gone]
    items += [Item("rest", path.name, (path,), size(path)) for path in _doomed(state)]
    if samples:
        items += _samples(state, index, set(gone))
    return items + [item for kind in ("images", *MEDIA) for item in _files(state, keep, kind)]


def _folders(state: State) -> Iterator[str]:
    for path in (state.folder / "store").glob("*"):
        if _FINGERPRINT.fullmatch(path.name):
            yield path.name


def _doomed(state: State) -> Iterator[Path]:
    """What an earlier call was about to delete when it was killed."""
    for folder in ("store", "models", "checkpoints"):
        yield from (state.folder / folder).glob(f"{_DOOMED}*")


def _artifact(state: State, index: dict[str, Any], mark: str) -> Item:
    entry = index["stages"].get(mark)
    paths = [state.artifact(mark), state.checkpoints(mark), state.work(mark), state.progress(mark)]
    if entry is not None:  # a folder of models that no stage made may be a materialised one
        paths.append(state.model(mark))
    there = tuple(path for path in paths if path.exists())
    what = f"{entry['kind']}.{entry['name']} {mark[:12]}" if entry else f"unfinished {mark[:12]}"
    return Item("artifact", what, there, sum(map(size, there)), mark)


def _samples(state: State, index: dict[str, Any], gone: set[str]) -> Iterator[Item]:
    """The ledgers of teachers that only stages asked which go now; none where one that stays does not say whom it asked."""
    asked = {
        mark: entry.get("ledger")
        for mark, entry in index["stages"].items()
        if entry["kind"] in ("sample", "eval")
    }
    theirs = {ledger for mark, ledger in asked.items() if mark in gone and ledger}
    others = {ledger for mark, ledger in asked.items() if mark not in gone}
    if None in others:
        return
    for name in sorted(theirs - others):
        path = state.folder / "store" / "samples" / name
        if path.exists():
            yield Item("samples", f"samples {name[:12]}", (path,), size(path))


def _files(state: State, keep: set[str], kind: str) -> list[Item]:
    """Pictures, videos or audio that no row shows which stays; none at all where a row file cannot be read."""
    try:
        shown = {name for mark in keep for name in _shown(state, mark, kind)}
    except DamagedArtifact:
        return []
    folder = state.folder / "store" / kind
    paths = tuple(path for path in folder.glob("??/*") if path.name.lstrip(".")[:64] not in shown)
    if not paths:
        return []
    return [Item(kind, f"{len(paths):,} {kind}", paths, sum(map(size, paths)))]


def _shown(state: State, mark: str, kind: str) -> Iterator[str]:
    for shard in Shards(state.artifact(mark)).read():
        if "row" in shard.files:
            try:
                table = pq.read_table(shard.files["row"], columns=[kind])
            except (OSError, pa.ArrowException) as error:
                raise DamagedArtifact(shard.files["row"]) from error
            if kind in table.column_names:  # rows of an earlier version have pictures alone
                yield from table[kind].combine_chunks().flatten().unique().to_pylist()


def size(path: Path) -> int:
    """Bytes of a file or of all files below a folder."""
    if not path.is_dir():
        return path.lstat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


# ---- deleting --------------------------------------------------------------------------------------------------


def sweep(state: State, index: dict[str, Any], items: Iterable[Item]) -> None:
    """Delete. The lineage of an artifact goes with it."""
    record = Record(state, "", index)
    for item in items:
        if item.fingerprint is not None and item.fingerprint in index["stages"]:
            record.forget(item.fingerprint)
        for path in item.paths:
            _delete(path)


def _delete(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    doomed = path
    if not path.name.startswith(_DOOMED):
        doomed = path.with_name(f"{_DOOMED}{path.name}")
        path.rename(doomed)
    shutil.rmtree(doomed)
