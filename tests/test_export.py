"""Exports, read back by those whose formats they are: `datasets`, mlcroissant, OpenLineage's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import datasets
import mlcroissant
import plans
import pytest
import yaml
from openlineage.client.facet_v2 import output_statistics_output_dataset, parent_run, schema_dataset
from openlineage.client.generated import base, dataset_version_dataset

from omr_runtime import lineage, story
from omr_runtime.executor import execute
from omr_runtime.export import card, dataset
from omr_runtime.export.openlineage import events
from omr_runtime.progress import PlainDisplay
from omr_runtime.store import ImageStore, State
from omrlang.cli import main
from omrlang.types import Binary, Col, Lit, UpTo


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mix of words, of which some are dropped, and of pictures."""
    folder = tmp_path_factory.mktemp("ran")
    rows = [{"question": f"what is {i % 8}?", "answer": str(i % 8)} for i in range(10)]
    (folder / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = plans.expression(
        Binary(op="!=", left=Col(name="answer"), right=Lit(value="3")), 'answer != "3"'
    )
    words = plans.source("words", "words.jsonl", where=where)
    specs = [
        words.model_copy(update={"licence": "MIT"}),
        plans.shapes("puzzles", 6),
        plans.mix("both", {"words": UpTo(n=99), "puzzles": UpTo(n=4)}),
    ]
    code, _ = execute(
        plans.plan(specs, folder / "state", folder), folder / "state", show=PlainDisplay()
    )
    assert code == 0
    return folder / "state"


@pytest.fixture(scope="module")
def exported(ran: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "set"
    assert main(["export", "dataset", "both", str(out), "--state", str(ran)]) == 0
    return out


def stored(ran: Path) -> list[dict[str, Any]]:
    return story.rows(ran, "both", 99)


def test_datasets_loads_the_folder_with_its_pictures(
    ran: Path, exported: Path, tmp_path: Path
) -> None:
    loaded = datasets.load_dataset(str(exported), cache_dir=str(tmp_path), split="train")
    expected = stored(ran)
    assert loaded["id"] == [row["id"] for row in expected]
    assert loaded["question"] == [row["question"] for row in expected]
    assert "response" not in loaded.column_names, "a column that no row fills is left out"
    assert isinstance(loaded.features["images"], datasets.List)
    images = ImageStore(ran)
    for row, want in zip(loaded, expected, strict=True):
        pictures = [picture.convert("RGB") for picture in row["images"] or ()]
        assert pictures == [images.open(name) for name in want["images"] or ()]
    assert sum(len(row["images"] or ()) for row in expected) == 4


def test_the_card_states_sources_counts_filters_and_licences(exported: Path) -> None:
    text = (exported / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "unknown"
    assert front["dataset_info"]["splits"] == [{"name": "train", "num_examples": 11}]
    assert "| words | jsonl('words.jsonl')" in text
    assert "| MIT | 10 | 7 |" in text
    assert "| mix.both | 15 | 11 | 4 | mixes words, puzzles |" in text
    assert '| source.words | answer != "3" | 1 |' in text
    assert "- MIT: words\n- unknown: puzzles" in text


@pytest.mark.parametrize(
    ("found", "word"), [([], "unknown"), (["MIT"], "mit"), (["MIT", "X"], "other")]
)
def test_the_hubs_word_for_a_licence(found: list[str | None], word: str) -> None:
    assert card.hub_licence(found) == word


def test_croissant_is_valid_and_its_records_are_the_rows(ran: Path, exported: Path) -> None:
    described = mlcroissant.Dataset(str(exported / "croissant.json"))
    issues = described.metadata.ctx.issues
    assert (issues.errors, issues.warnings) == (set(), set())
    records = list(described.records("rows"))
    assert [record["rows/id"].decode() for record in records] == [row["id"] for row in stored(ran)]
    assert sum(len(record["rows/images"] or ()) for record in records) == 4
    told = json.loads((exported / "croissant.json").read_text())
    for file in told["distribution"][:-1]:
        assert sha256((exported / file["contentUrl"]).read_bytes()).hexdigest() == file["sha256"]


# ---- OpenLineage -----------------------------------------------------------------------------------------------


def official(event: dict[str, Any]) -> base.RunEvent:
    """The event as the classes that OpenLineage generates from its schema take it: unknown or missing fields, times
    without a zone and ids that are none are refused."""
    return base.RunEvent(
        eventTime=event["eventTime"],
        eventType=base.EventType(event["eventType"]),
        producer=event["producer"],
        run=base.Run(event["run"]["runId"], facets=dict(run_facets(event))),
        job=base.Job(**event["job"]),
        inputs=[base.InputDataset(**given) for given in event["inputs"]],
        outputs=[base.OutputDataset(**given) for given in event["outputs"]],
    )


def run_facets(event: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, facet in event["run"]["facets"].items():
        assert name == "parent"
        yield (
            name,
            parent_run.ParentRunFacet(
                run=parent_run.Run(facet["run"]["runId"]), job=parent_run.Job(**facet["job"])
            ),
        )


def without_marks(facet: dict[str, Any]) -> dict[str, Any]:
    assert facet["_producer"]
    assert facet["_schemaURL"].startswith("https://openlineage.io/spec/facets/")
    return {name: value for name, value in facet.items() if not name.startswith("_")}


def test_events_are_openlineages(ran: Path) -> None:
    found = [official(event) for event in events(ran)]
    assert [event.eventTime for event in found] == sorted(event.eventTime for event in found)
    assert all(datetime.fromisoformat(event.eventTime).tzinfo for event in found)
    kinds: dict[str, list[str]] = {}
    for event in found:
        kinds.setdefault(event.job.name, []).append(event.eventType.value)
    stages = ["test.omr", "test.omr.words", "test.omr.puzzles", "test.omr.both"]
    assert kinds == {name: ["START", "COMPLETE"] for name in stages}


def test_facets_are_openlineages(ran: Path) -> None:
    ends = {e["job"]["name"]: e for e in events(ran) if e["eventType"] == "COMPLETE"}
    both = ends["test.omr.both"]
    assert [given["name"] for given in both["inputs"]] == ["words", "puzzles"]
    (made,) = both["outputs"]
    assert made["name"] == "both"
    counted = without_marks(made["outputFacets"]["outputStatistics"])
    assert (
        output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(**counted).rowCount
        == 11
    )
    version = without_marks(made["facets"]["version"])
    dataset_version_dataset.DatasetVersionDatasetFacet(**version)
    fields = without_marks(made["facets"]["schema"])["fields"]
    schema_dataset.SchemaDatasetFacet(
        fields=[schema_dataset.SchemaDatasetFacetFields(**field) for field in fields]
    )
    (read,) = ends["test.omr.words"]["inputs"]
    assert (read["namespace"], read["name"]) == ("jsonl", "jsonl('words.jsonl')")


def test_the_same_run_has_the_same_ids(ran: Path) -> None:
    assert events(ran) == events(ran)
    with lineage.read(State(ran).lineage) as reader:
        run = reader.runs()[0]["id"]
    assert events(ran, run) == events(ran)


# ---- what goes wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dataset", "nothing", "new"], "no stage 'nothing' was run"),
        (["dataset", "both", "."], ". is there already"),
        (["lineage", "no/where/events.jsonl"], "No such file"),
        (["lineage", "events.jsonl", "--run", "zzz"], "no run zzz"),
    ],
)
def test_mistakes_are_said(
    ran: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments, "--state", str(ran)]) == 1
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_leaves_nothing(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset, "card", full)
    assert main(["export", "dataset", "both", str(tmp_path / "x"), "--state", str(ran)]) == 1
    assert list(tmp_path.iterdir()) == []
