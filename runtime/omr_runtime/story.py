"""The lineage of a row or a stage to what a person asks: why is it here, where did it go."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from omr_runtime import lineage
from omr_runtime.errors import RunError
from omr_runtime.lineage import Reader
from omr_runtime.store import State, read_index
from omr_runtime.work import Shards
from omrlang.schema import Sample, Spec
from omrlang.types import Model

_MAX_LISTED = 12
_SPEC: TypeAdapter[Spec] = TypeAdapter(Spec)


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage as the lineage has it; ``number`` orders stages so that each stands after its parents."""

    fingerprint: str
    name: str
    kind: str
    spec: Spec
    number: int

    @property
    def address(self) -> str:
        return f"{self.kind}.{self.name}"


# ---- runs, stages, rows ----------------------------------------------------------------------------------------


def runs(folder: Path) -> list[dict[str, Any]]:
    with lineage.read(State(folder).lineage) as reader:
        return [
            {
                "run": run["id"],
                "recipe": run["recipe"],
                "started": run["started"],
                "ended": run["ended"],
                "exit": run["exit_code"],
                "stages": len(json.loads(run["stages"])),
                "host": run["host"],
            }
            for run in reader.runs()
        ]


def stages(folder: Path) -> list[dict[str, Any]]:
    """All artifacts of the state, whatever recipe made them."""
    index = read_index(State(folder))
    return [
        {
            "stage": f"{entry['kind']}.{entry['name']}",
            "fingerprint": fingerprint[:12],
            "status": entry["status"] if entry.get("files_ok", True) else "damaged",
            "rows_in": entry.get("num_in"),
            "kept": entry.get("num_kept", entry["num_rows"]),
            "dropped": entry["num_dropped"],
            "seconds": round(entry["seconds"], 1),
            "updated": entry.get("updated"),
        }
        for fingerprint, entry in sorted(
            index["stages"].items(), key=lambda item: item[1].get("updated") or ""
        )
    ]


def find_stage(state: State, text: str) -> tuple[str, dict[str, Any]]:
    """Fingerprint and entry of the stage that a name or the start of a fingerprint means; of several the newest."""
    entries = read_index(state)
    named = {mark for key, mark in entries["names"].items() if key.endswith(f"::{text}")}
    known: dict[str, dict[str, Any]] = entries["stages"]
    found = [
        (entry.get("updated") or "", mark)
        for mark, entry in known.items()
        if mark in named or entry["name"] == text or (len(text) >= 4 and mark.startswith(text))
    ]
    if not found:
        names = ", ".join(sorted({entry["name"] for entry in known.values()})) or "none yet"
        raise RunError(f"no stage {text!r} was run on {state.folder}; there are: {names}")
    mark = max(found)[1]
    return mark, known[mark]


def rows(folder: Path, stage: str, limit: int) -> list[dict[str, Any]]:
    """The first rows of a stage from its Parquet files; rollouts where it is trained by reinforcement."""
    state = State(folder)
    mark, entry = find_stage(state, stage)
    table = "rollout" if entry["kind"] == "rl" else "row"
    files = [
        shard.files[table] for shard in Shards(state.artifact(mark)).read() if table in shard.files
    ]
    if not files:
        raise RunError(f"{entry['kind']}.{entry['name']} has no rows to show")
    return lineage.read_parquet(files, limit)


def ask(folder: Path, query: str) -> list[dict[str, Any]]:
    """What a query of the user's own gives. The newest artifact of each stage name is a view of that name."""
    state = State(folder)
    stages = read_index(state)["stages"]
    newest = {
        e["name"]: mark
        for mark, e in sorted(stages.items(), key=lambda item: item[1].get("updated") or "")
    }
    with lineage.read(state.lineage) as reader:
        for name, mark in newest.items():
            files = [
                shard.files["row"]
                for shard in Shards(state.artifact(mark)).read()
                if "row" in shard.files
            ]
            if files:
                reader.view(name, files)
        return reader.ask(query)


SHOWN = ("loss", "reward", "watch/accuracy", "response_tokens", "entropy", "spread_share", "lr")
"""The figures of a step that a table has room for."""


def steps(folder: Path, stage: str, whole: bool = False) -> list[dict[str, Any]]:
    """The figures of each training step, in order; all of them with ``whole``. Step 0 is the model that it began with."""
    state = State(folder)
    mark, entry = find_stage(state, stage)
    with lineage.read(state.lineage) as reader:
        lines = [line for line in reader.metrics(mark) if line["step"] is not None]
    if not lines:
        raise RunError(f"{entry['kind']}.{entry['name']} has no steps to show")
    there = {line["name"] for line in lines}
    names = sorted(there) if whole else [name for name in SHOWN if name in there]
    found: dict[int, dict[str, Any]] = {}
    for line in lines:
        empty = {"step": line["step"], **dict.fromkeys(names)}
        row = found.setdefault(line["step"], empty)
        if line["name"] in names:
            row[line["name"]] = line["value"] if whole else _figure(line["value"])
    return [found[step] for step in sorted(found)]


# ---- the life of a row -----------------------------------------------------------------------------------------


def why(folder: Path, text: str) -> list[str]:
    """Everything that is known of a row, from its source to the steps that trained on it."""
    state = State(folder)
    with lineage.read(state.lineage) as reader:
        known = _stages(reader)
        ident = _the_row(reader, text)
        lines = _head(state, reader, ident)
        for row in [*_ancestors(reader, ident), ident]:
            lines += ["", f"{'this row' if row == ident else 'its ancestor'} {row}"]
            lines += _table(_events(state, reader, known, row))
        lines += _descendants(reader, known, ident)
    return lines


def why_not(folder: Path, text: str) -> list[str]:
    """Where a row was dropped and by which rule, or where it still is."""
    with lineage.read(State(folder).lineage) as reader:
        known = _stages(reader)
        ident = _the_row(reader, text)
        drops = reader.drops_of(ident)
        if not drops:
            held = ", ".join(known[place["stage"]].address for place in reader.places_of(ident))
            return [f"row {ident}", f"dropped nowhere; it is in {held or 'no stage'}"]
        lines = [f"row {ident}"]
        for drop in drops:
            stage = known[drop["stage"]]
            lines.append(f"dropped in {stage.address}: {drop['reason']}")
            lines += [
                f"  {_verdict(v)}" for v in reader.verdicts_of(ident) if v["stage"] == drop["stage"]
            ]
        return lines


def _stages(reader: Reader) -> dict[str, Stage]:
    return {
        found["fingerprint"]: Stage(
            found["fingerprint"],
            found["name"],
            found["kind"],
            _SPEC.validate_json(found["spec"]),
            number,
        )
        for number, found in enumerate(reader.stages())
    }


def _the_row(reader: Reader, text: str) -> str:
    """The one id that starts so."""
    found = reader.ids_with_prefix(text, _MAX_LISTED + 1)
    if not found:
        raise RunError(f"no row's id starts with {text!r}; `omr show rows STAGE` prints some")
    if len(found) > 1 and text not in found:
        more = " and more" if len(found) > _MAX_LISTED else ""
        raise RunError(
            f"{text!r} is the start of several ids: {', '.join(found[:_MAX_LISTED])}{more}"
        )
    return text if text in found else found[0]


def _head(state: State, reader: Reader, ident: str) -> list[str]:
    """The row's text from Parquet, where a stage kept it."""
    lines = [f"row {ident}"]
    row = stored(state, reader, ident)
    for name in (
        "source",
        "question",
        "images",
        "videos",
        "audios",
        "options",
        "answer",
        "thinking",
        "response",
        "final_answer",
    ):
        value = row.get(name)
        if value not in (None, [], ""):
            lines.append(f"  {name:<13} {str(value).replace(chr(10), chr(92) + 'n')}")
    return lines


def stored(state: State, reader: Reader, ident: str) -> dict[str, Any]:
    """The row as a stage's Parquet file holds it; empty where no file does any more."""
    for place in reader.places_of(ident):
        file = state.artifact(place["stage"]) / f"part-{place['shard']:05d}.parquet"
        if file.exists() and (found := lineage.read_parquet([file], 1, ident)):
            return found[0]
    return {}


def _ancestors(reader: Reader, ident: str) -> list[str]:
    """The rows that this one was made of, the oldest first."""
    found: list[str] = []
    open_rows = [ident]
    while open_rows:
        row = open_rows.pop()
        for edge in reader.edges_up(row):
            if edge["role"] != "duplicate_of" and edge["parent"] not in found:
                found.append(edge["parent"])
                open_rows.append(edge["parent"])
    if not found:
        rollout = reader.rollout(ident)
        return [*_ancestors(reader, rollout[0]["row"]), rollout[0]["row"]] if rollout else []
    return found[::-1]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a stage did with a row; ``rank`` orders events of one stage."""

    stage: Stage
    rank: int
    text: str


def _events(state: State, reader: Reader, known: dict[str, Stage], row: str) -> list[Event]:
    found = [
        *_made(state, reader, known, row),
        *_judged(reader, known, row),
        *_used(reader, known, row),
    ]
    return sorted(found, key=lambda event: (event.stage.number, event.rank))


def _made(state: State, reader: Reader, known: dict[str, Stage], row: str) -> Iterator[Event]:
    """Where it was read, sampled, copied, rolled out."""
    for origin in reader.origin_of(row):
        yield Event(
            known[origin["stage"]], 0, f"read from {origin['file']}, row {origin['position']:,}"
        )
    found: dict[str, Any] | None = None
    for edge in reader.edges_up(row):
        stage = known[edge["stage"]]
        if edge["role"] == "sampled_from":
            found = stored(state, reader, row) if found is None else found
            yield Event(stage, 0, _sampled(stage, found))
        elif edge["role"] == "duplicate_of":
            yield Event(stage, 2, f"repeats row {edge['parent']}")
        else:
            yield Event(stage, 0, f"{edge['role']} from row {edge['parent']}")
    for rollout in reader.rollout(row):
        stage = known[rollout["stage"]]
        text = f"rollout at step {rollout['step']:,}: reward {_figure(rollout['reward'])}, advantage {_figure(rollout['advantage'])}"
        end = f"{rollout['num_tokens']:,} tokens{_older(rollout)}, finish {rollout['finish']}"
        yield Event(stage, 0, f"{text}, {end}")


def _older(rollout: dict[str, Any]) -> str:
    """By which steps' weights it was drawn, where not by those of its own step alone. An earlier lineage does not know."""
    first, carried = rollout["first_step"], rollout["carried_tokens"]
    if first is None or first == rollout["step"]:
        return ""
    if carried == rollout["num_tokens"]:
        return f", drawn by the weights with which step {first:,} began"
    return f", {carried:,} of them by older weights, at the earliest those with which step {first:,} began"


def _sampled(stage: Stage, row: dict[str, Any]) -> str:
    """Who made it, and with which parameters."""
    spec = stage.spec
    who = getattr(spec, "model", None)
    name = (
        f"{who.name} ({_model_source(who)})"
        if isinstance(who, Model)
        else getattr(who, "stage", "?")
    )
    index = row.get("sample_index")
    of = f"sample {index + 1} of {getattr(spec, 'n', 1)}" if index is not None else "sampled"
    names = ("temperature", "top_p", "top_k", "max_tokens", "min_pixels", "max_pixels")
    decoding = [
        f"{n} {_figure(getattr(spec, n))}" for n in names if getattr(spec, n, None) is not None
    ]
    prompt = [f"prompt {spec.prompt.name}"] if isinstance(spec, Sample) else []
    how = [f"engine {row['engine']}"] if row.get("engine") else []
    tokens = [f"{row['num_tokens']:,} tokens"] if row.get("num_tokens") is not None else []
    finish = [f"finish {row['finish']}"] if row.get("finish") else []
    return f"{of} by {name}: {', '.join([*decoding, f'seed {spec.seed}', *prompt, *how, *tokens, *finish])}"


def _model_source(model: Model) -> str:
    values = model.source.model_dump(exclude={"kind"}, exclude_none=True)
    return f"{model.source.kind} {', '.join(f'{name} {value}' for name, value in values.items())}"


def _judged(reader: Reader, known: dict[str, Stage], row: str) -> Iterator[Event]:
    """Verdicts, and whether each stage kept or dropped it."""
    for verdict in reader.verdicts_of(row):
        yield Event(known[verdict["stage"]], 1, _verdict(verdict))
    for place in reader.places_of(row):
        yield Event(known[place["stage"]], 3, "kept")
    for drop in reader.drops_of(row):
        yield Event(known[drop["stage"]], 3, f"dropped: {drop['reason']}")


def _verdict(verdict: dict[str, Any]) -> str:
    answer = {True: "yes", False: "no", None: "unknown"}[verdict["ok"]]
    score = f" (score {_figure(verdict['score'])})" if verdict["score"] is not None else ""
    reason = verdict["reason"] if verdict["reason"] and verdict["reason"] != verdict["rule"] else ""
    return f"{verdict['rule']}: {answer}{score}{', ' + reason if reason else ''}"


def _used(reader: Reader, known: dict[str, Stage], row: str) -> Iterator[Event]:
    """Training steps."""
    for use in reader.uses_of(row):
        yield Event(known[use["stage"]], 4, f"trained on at {_steps(use['steps'])}")
    by_stage: dict[str, list[dict[str, Any]]] = {}
    for rollouts in reader.rollouts_of(row):
        by_stage.setdefault(rollouts["stage"], []).append(rollouts)
    for mark, steps in by_stage.items():
        for step in steps[:_MAX_LISTED]:
            unused = f", left out: {step['left_out']}" if step["left_out"] else ""
            first, own = step["first_step"], step["step"]
            older = (
                ""
                if first in (None, own)
                else f", at the earliest by the weights with which step {first:,} began"
            )
            text = f"{step['num']} rollouts at step {own:,}{older}, mean reward {_figure(step['mean_reward'])}{unused}"
            yield Event(known[mark], 5, text)


def _steps(steps: Sequence[int]) -> str:
    shown = ", ".join(f"{step:,}" for step in steps[:_MAX_LISTED])
    more = f" and {len(steps) - _MAX_LISTED:,} more" if len(steps) > _MAX_LISTED else ""
    return f"step{'s' if len(steps) > 1 else ''} {shown}{more}"


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _descendants(reader: Reader, known: dict[str, Stage], ident: str) -> list[str]:
    """What was made of the row, each with where it ended."""
    edges = reader.edges_down(ident)
    lines = [""] if edges else []
    for edge in edges[:_MAX_LISTED]:
        child = edge["child"]
        drops = [
            f"dropped in {known[d['stage']].address}: {d['reason']}" for d in reader.drops_of(child)
        ]
        kept = [known[place["stage"]].address for place in reader.places_of(child)]
        word = {"duplicate_of": "duplicate", "sampled_from": "sample"}.get(
            edge["role"], edge["role"]
        )
        fate = "; ".join([*([f"in {', '.join(kept)}"] if kept else []), *drops])
        lines.append(
            f"its {word} {child} ({known[edge['stage']].address}): {fate or 'nowhere any more'}"
        )
    if len(edges) > _MAX_LISTED:
        lines.append(f"and {len(edges) - _MAX_LISTED:,} more")
    return lines


def _table(events: Sequence[Event]) -> list[str]:
    """Addresses in one column, each once."""
    width = max((len(event.stage.address) for event in events), default=0)
    lines, last = [], ""
    for event in events:
        address = event.stage.address
        lines.append(f"  {address if address != last else '':<{width}}  {event.text}")
        last = address
    return lines
