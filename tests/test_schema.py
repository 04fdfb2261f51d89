"""``omr schema``: valid JSON Schema, complete, and what recipes and commands really hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from made_recipes import cluster, quickstart

from omrlang.cli import main
from omrlang.cli.schema import declared, one, planned, recipe_schema, written
from omrlang.plan import FORMAT_VERSION
from omrlang.schema import KINDS
from omrlang.types import Clause, Setting

ROOT = Path(__file__).parents[1]
WORDS = {**declared(), **written()}
RECIPES = sorted((ROOT / "pipelines").rglob("*.omr"))


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("word", [None, *WORDS])
def test_the_command_prints_a_valid_schema(
    word: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schema", *([word] if word else [])]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    validator(schema)


def test_every_setting_says_what_it_is() -> None:
    """In the one schema of everything: documentation, class and unit as declared."""
    schema = recipe_schema()
    for word, model in declared().items():
        properties = schema["$defs"][schema["x-kinds"][word]["$ref"].rpartition("/")[2]][
            "properties"
        ]
        assert properties.keys() == model.model_fields.keys()
        for name, info in model.model_fields.items():
            for item in info.metadata:
                if isinstance(item, Setting | Clause) and item.doc:
                    assert properties[name]["description"] == item.doc
                    assert properties[name]["x-class"] == item.cls
                if isinstance(item, Setting) and item.unit:
                    assert properties[name]["x-unit"] == item.unit


def test_every_number_has_a_bound() -> None:
    """No count below zero and no share of minus one is taken in silence."""
    free = [
        f"{model}.{name}"
        for model, schema in recipe_schema()["$defs"].items()
        for name, found in schema.get("properties", {}).items()
        if found.get("x-class") and not all(map(is_bounded, numbers(found)))
    ]
    assert free == []


def numbers(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The numbers among what a setting takes, with the bounds of the whole setting."""
    if schema.get("type") in ("integer", "number"):
        yield schema
    for part in (*schema.get("anyOf", ()), *schema.get("prefixItems", ())):
        yield from numbers({**schema, "type": "", "anyOf": (), "prefixItems": ()} | part)


def is_bounded(schema: dict[str, Any]) -> bool:
    return bool({"minimum", "exclusiveMinimum"} & schema.keys())


def test_every_setting_of_a_stage_is_documented() -> None:
    for kind, model in KINDS.items():
        for name, info in model.model_fields.items():
            declarations = [item for item in info.metadata if isinstance(item, Setting | Clause)]
            assert all(item.doc for item in declarations), f"{kind}.{name}"


@pytest.mark.parametrize("spec", [*quickstart(), *cluster()], ids=lambda spec: spec.name)
def test_specifications_fit_the_schema(spec: Any) -> None:
    check = validator(recipe_schema())
    check.validate(spec.model_dump(mode="json"))
    validator(one(KINDS[spec.kind])).validate(spec.model_dump(mode="json"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_plans_of_shipped_recipes_fit_the_schema(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = validator(one(planned()))
    code = main(["plan", str(path), "--json", "--state", str(tmp_path)])
    found = json.loads(capsys.readouterr().out)
    check.validate(found)
    for plan in found if isinstance(found, list) else [found]:
        assert plan["format_version"] == FORMAT_VERSION
        assert {"applyable", "complete", "errored"} <= plan.keys()
        assert isinstance(plan["totals"]["usd"]["mid"], str | None)
    if not isinstance(found, list):
        assert found["exit"]["code"] == code


def test_a_sweep_and_a_plan_that_failed_fit_the_schema(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = validator(one(planned()))
    path = tmp_path / "a.omr"
    text = 'omr 1\n\nseed = 1\n\nsource a from synthetic("shapes", n = sweep(3, 4), seed = 1)\n'
    for recipe, code, kind in ((text, 0, list), (text.replace("seed = 1)", "sed = 1)"), 1, dict)):
        path.write_text(recipe)
        assert main(["plan", str(path), "--json"]) == code
        found = json.loads(capsys.readouterr().out)
        check.validate(found)
        assert isinstance(found, kind)
    assert found["exit"] == {"code": 1, "reason": "errors"}
    assert (found["applyable"], found["complete"], found["errored"]) == (False, False, True)
    assert found["diagnostics"][0]["code"].startswith("E")


def test_a_wrong_value_does_not_fit() -> None:
    spec = next(spec for spec in quickstart() if spec.kind == "sample")
    wrong = {**spec.model_dump(mode="json"), "temperature": -1}
    assert not validator(one(KINDS["sample"])).is_valid(wrong)


def test_an_unknown_word_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "sampel"]) == 64
    assert "`sample` is one" in capsys.readouterr().err
