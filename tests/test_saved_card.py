"""The card in the folder of a model that a run trained: read by the hub's own class, true, and free of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import plans
import pytest
from huggingface_hub import ModelCard

from omr_runtime.executor import execute
from omr_runtime.progress import PlainDisplay
from omr_runtime.store import State, read_index
from omr_runtime.train.sft import copy_companions
from omrlang.plan import Plan
from omrlang.schema import Spec
from omrlang.types import (
    Amount,
    Constant,
    FolderModel,
    HfData,
    HfModel,
    Model,
    Prompt,
    TrainedModel,
)
from tests.training_parts import fresh_folder

PROMPT = Prompt(
    name="short", system="Answer with one word.\n---\nlicense: none | `x`", thinking=None
)


def specs(folder: Path, model: Model) -> list[Spec]:
    """Rows from a file that is named with its whole path, a training, and an eval of what it made."""
    words = plans.source("words", str(folder / "secret place" / "words.jsonl"))
    training = {
        "name": "tuned", "seed": 7, "rows": "words", "model": model, "prompt": PROMPT, "pack": 128,
        "batch": Amount(value=2, unit="packs"), "steps": 2, "lr": Constant(peak=1e-3), "precision": "fp32",
    }  # fmt: skip
    judging = {
        "name": "after", "seed": 7, "rows": ("words",), "model": TrainedModel(stage="tuned"),
        "prompt": PROMPT, "temperature": 0.0, "max_tokens": 4,
        "engine": {"kind": "transformers"},
    }  # fmt: skip
    return [
        words.model_copy(update={"licence": "CC-BY 4.0: see below"}),
        plans.Sft.model_validate(training),
        plans.Eval.model_validate(judging),
    ]


def run(folder: Path, wanted: list[Spec]) -> Plan:
    state = folder / "state"
    plan = plans.plan(wanted, state, folder)
    code, _ = execute(plan, state, show=PlainDisplay())
    assert code == 0
    return plan


def card_of(folder: Path, plan: Plan) -> Path:
    return State(folder / "state").model(plan.stage("tuned").fingerprint) / "README.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("here")
    (found / "secret place").mkdir()
    rows = [{"question": f"how many is {i}?", "answer": i, "response": f"{i}"} for i in range(8)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (found / "secret place" / "words.jsonl").write_text(text)
    fresh_folder(found / "base model", "qwen2")
    (found / "base model" / "README.md").write_text("of the base")
    return found


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    base = FolderModel(path=str(folder / "base model"))
    return run(folder, specs(folder, Model(name="mine", source=base, precision="fp32")))


def test_the_hub_reads_the_card(folder: Path, plan: Plan) -> None:
    card = ModelCard.load(card_of(folder, plan))
    data = card.data.to_dict()
    mark = plan.stage("tuned").fingerprint
    assert data["omr_fingerprint"] == mark
    assert data["library_name"] == "transformers"
    assert data["tags"] == ["omr", "sft"]
    assert data["license"] == "unknown", "the base's licence is"
    (result,) = card.data.eval_results or []
    assert (result.metric_type, result.metric_name) == ("accuracy", "after")
    accuracy = read_index(State(folder / "state"))["stages"][plan.stage("after").fingerprint]
    assert result.metric_value == round(100 * accuracy["metrics"]["accuracy"], 2)


def test_the_card_says_what_the_lineage_knows(folder: Path, plan: Plan) -> None:
    text = card_of(folder, plan).read_text()
    assert plan.stage("tuned").fingerprint in text
    assert "| words | jsonl('…/words.jsonl') |" in text
    assert "CC-BY 4.0: see below | 8 |" in text
    assert (
        "- `sft.tuned`: 2 steps on `words`, from mine (folder …/base model), licence unknown"
        in text
    )
    assert "| `lr.peak` | `0.001` |" in text
    assert "| `steps` | `2` |" in text
    entry = read_index(State(folder / "state"))["stages"][plan.stage("tuned").fingerprint]
    assert f"| loss | {entry['metrics']['loss']:,.6g} |" in text
    assert "of the base" not in text


def test_the_card_says_nothing_of_this_machine(folder: Path, plan: Plan) -> None:
    text = card_of(folder, plan).read_text()
    assert str(folder) not in text
    assert "secret place" not in text


def test_a_card_that_is_missing_is_written_by_the_next_run(folder: Path, plan: Plan) -> None:
    path = card_of(folder, plan)
    before = path.read_text()
    path.unlink()
    again = plans.plan([stage.spec for stage in plan.stages], folder / "state", folder)
    assert execute(again, folder / "state", show=PlainDisplay()) == (0, [])
    assert path.read_text() == before


def test_a_card_of_a_published_model_names_it(folder: Path, plan: Plan) -> None:
    """The front alone: nothing is fetched."""
    from omr_runtime.export.ancestry import Made
    from omr_runtime.export.card import Facts
    from omr_runtime.export.trained import saved_card

    spec = plan.stage("tuned").spec
    hub = Model(name="mine", source=HfModel(id="Qwen/Qwen2.5-VL-7B-Instruct"), licence="Apache-2.0")
    source = plans.source("words", HfData(id="someone/words"), licence="Apache-2.0")
    entry = {"name": "words", "kind": "source", "num_rows": 3, "num_dropped": 1}
    made = [
        Made("a" * 32, source, entry, {}, None, {}),
        Made("b" * 32, spec.model_copy(update={"model": hub}), {**entry, "name": "tuned", "kind": "sft"}, {"words": "a" * 32}, None, {}),
    ]  # fmt: skip
    data = ModelCard(saved_card(Facts("tuned", made, (), (), "0"), [])).data.to_dict()
    assert data["base_model"] == ["Qwen/Qwen2.5-VL-7B-Instruct"]
    assert data["datasets"] == ["someone/words"]
    assert data["license"] == "apache-2.0"


def test_the_card_of_the_base_is_not_taken_over(tmp_path: Path, folder: Path) -> None:
    copy_companions(folder / "base model", tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert "tokenizer.json" in names
    assert "README.md" not in names
