"""A run -> OpenLineage events: for each stage that it made, its start and its end with inputs, outputs and counts.

https://openlineage.io/spec: datasets and jobs have a namespace and a name, runs a UUID, times a zone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from pydantic import TypeAdapter, ValidationError

from omr_runtime import lineage
from omr_runtime.errors import RunError
from omr_runtime.export.ancestry import place_text
from omr_runtime.lineage import Reader
from omr_runtime.store import State
from omr_runtime.work import ROW
from omrlang.schema import Source, Spec

PRODUCER = "urn:omrlang"
_EVENT = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS = "https://openlineage.io/spec/facets"
_SPEC: TypeAdapter[Spec] = TypeAdapter(Spec)
_ENDS = {"done": "COMPLETE", "failed": "FAIL", "partial": "ABORT"}

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Run:
    """``namespace`` is where the state folder lies."""

    run: dict[str, Any]
    namespace: str

    def id_of(self, what: str) -> str:
        return str(uuid5(NAMESPACE_URL, f"omr/{self.run['id']}/{what}"))

    @property
    def job(self) -> str:
        return Path(self.run["recipe"]).name


def events(folder: Path, run: str | None = None) -> list[Event]:
    """Those of one run, the last where none is named, in order of time. RunError where there is none."""
    state = State(folder)
    with lineage.read(state.lineage) as reader:
        runs = [one for one in reader.runs() if run is None or one["id"].startswith(run)]
        if not runs:
            raise RunError(f"no run {run or ''} on {state.folder}; `omr show runs` lists them")
        found = list(_events(reader, _Run(runs[-1], f"file://{state.folder}")))
    return sorted(found, key=lambda event: event["eventTime"])


def export_events(folder: Path, out: Path, run: str | None = None) -> int:
    """One event a line; how many."""
    found = events(folder, run)
    out.write_text("".join(json.dumps(event, ensure_ascii=False) + "\n" for event in found))
    return len(found)


def _events(reader: Reader, run: _Run) -> Iterator[Event]:
    whole = run.run
    yield _event(run, "START", whole["started"], run.job, "run", {})
    known = reader.stages()
    for stage in known:
        if stage["run"] == whole["id"] and stage["finished"]:
            yield from _of_stage(reader, run, stage, known)
    if whole["ended"]:
        kind = {0: "COMPLETE", 5: "ABORT"}.get(whole["exit_code"], "FAIL")
        yield _event(run, kind, whole["ended"], run.job, "run", {})


def _of_stage(
    reader: Reader, run: _Run, stage: dict[str, Any], known: list[dict[str, Any]]
) -> Iterator[Event]:
    name = f"{run.job}.{stage['name']}"
    inputs = [_dataset(run, parent) for parent in json.loads(stage["parents"])] + list(
        _outside(stage)
    )
    outputs = [_output(reader, run, stage)]
    parent = _facet("1-1-0/ParentRunFacet.json", run={"runId": run.id_of("run")},
                    job={"namespace": run.namespace, "name": run.job})  # fmt: skip
    took = timedelta(seconds=stage["seconds"] or 0.0)
    begun = max(_moment(stage["finished"]) - took, _moment(run.run["started"]))
    facets = {"parent": parent}
    yield _event(run, "START", begun, name, stage["fingerprint"], facets, inputs, [])
    end = _ENDS.get(stage["status"], "OTHER")
    yield _event(run, end, stage["finished"], name, stage["fingerprint"], facets, inputs, outputs)


def _event(
    run: _Run,
    kind: str,
    when: str | datetime,
    job: str,
    what: str,
    facets: dict[str, Any],
    inputs: list[Any] | None = None,
    outputs: list[Any] | None = None,
) -> Event:
    moment = _moment(when) if isinstance(when, str) else when
    return {
        "eventType": kind,
        "eventTime": moment.isoformat(),
        "run": {"runId": run.id_of(what), "facets": facets},
        "job": {"namespace": run.namespace, "name": job, "facets": {}},
        "inputs": inputs or [],
        "outputs": outputs or [],
        "producer": PRODUCER,
        "schemaURL": _EVENT,
    }


def _moment(text: str) -> datetime:
    """A time of the lineage, which is this machine's, with its zone."""
    return datetime.fromisoformat(text).astimezone()


def _dataset(run: _Run, name: str) -> dict[str, Any]:
    return {"namespace": run.namespace, "name": name, "facets": {}}


def _outside(stage: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a source reads."""
    try:
        spec = _SPEC.validate_json(stage["spec"])
    except ValidationError:
        return
    if isinstance(spec, Source):
        version = _facet(
            "1-0-1/DatasetVersionDatasetFacet.json", datasetVersion=stage["revision"] or "unknown"
        )
        yield {
            "namespace": spec.place.kind,
            "name": place_text(spec.place),
            "facets": {"version": version},
        }


def _output(reader: Reader, run: _Run, stage: dict[str, Any]) -> dict[str, Any]:
    counts = reader.counts(stage["fingerprint"])
    fields = [{"name": field.name, "type": str(field.type)} for field in ROW]
    facets = {
        "version": _facet(
            "1-0-1/DatasetVersionDatasetFacet.json", datasetVersion=stage["fingerprint"]
        ),
        "schema": _facet("1-1-1/SchemaDatasetFacet.json", fields=fields),
    }
    counted = _facet("1-0-2/OutputStatisticsOutputDatasetFacet.json", rowCount=counts.num_rows)
    return _dataset(run, stage["name"]) | {
        "facets": facets,
        "outputFacets": {"outputStatistics": counted},
    }


def _facet(schema: str, **values: Any) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": f"{_FACETS}/{schema}", **values}
