"""The standard library's facts against arithmetic, and that every module stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from omr_runtime.verify.interpret import evaluate
from omrlang.compiler import load
from omrlang.estimate.shapes import (
    is_untied,
    kv_bytes_per_token,
    layer_params,
    origin_of,
    text_params,
)
from omrlang.format import format_text
from omrlang.hir import Recipe
from omrlang.render import render
from omrlang.schema import Source
from omrlang.types import Model, Shape

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "stdlib").glob("*.omr"))


def loaded(path: Path) -> Recipe:
    recipe, diagnostics = load(path)
    assert recipe is not None, render(diagnostics)
    return recipe


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_is_formatted_and_says_nothing(path: Path) -> None:
    """Except that nobody published the licence of some training sets."""
    recipe, diagnostics = load(path)
    assert recipe is not None, render(diagnostics)
    assert {item.code for item in diagnostics} <= {"W115"}, render(diagnostics)
    assert format_text(path.read_text()) == path.read_text()


# ---- models ----------------------------------------------------------------------------------------------------------

MODELS = {model.name: model for model in loaded(ROOT / "stdlib" / "models.omr").models}
SHAPES = {name: model.shape for name, model in MODELS.items() if model.shape is not None}

PUBLISHED_BILLIONS = {
    "qwen2_5_vl_7b": 8.29,
    "qwen2_5_vl_72b": 73.4,
    "qwen3_vl_2b": 2.13,
    "qwen3_vl_8b": 8.77,
    "qwen3_vl_30b": 31.1,
    "qwen3_vl_235b": 236,
    "qwen3_235b": 235,
    "llava_onevision_1_5_8b": 8.53,
    "gemma3_4b": 4.30,
    "smolvlm2_256m": 0.256,
    "internvl3_8b": 7.94,
    "qwen2_5_7b": 7.62,
    "qwen3_8b": 8.19,
    "smollm2_135m": 0.1345,
    "llama3_1_8b": 8.03,
}
"""Totals as the makers' pages print them."""

ACTIVE_BILLIONS = {"qwen3_vl_30b": 3.3, "qwen3_vl_235b": 22, "qwen3_30b": 3.3, "qwen3_235b": 22}
"""Parameters that one token goes through, as the makers print them."""


@pytest.mark.parametrize("name", SHAPES)
def test_layers_and_vocabulary_add_up_to_the_parameters(name: str) -> None:
    shape = SHAPES[name]
    tables = (1 + is_untied(shape)) * shape.vocab * shape.hidden
    computed = layer_params(shape) + tables + shape.vision_params
    assert computed == pytest.approx(shape.num_params, rel=0.01)


@pytest.mark.parametrize("name", PUBLISHED_BILLIONS)
def test_parameters_are_what_the_makers_print(name: str) -> None:
    assert SHAPES[name].num_params / 1e9 == pytest.approx(PUBLISHED_BILLIONS[name], rel=0.005)


@pytest.mark.parametrize("name", ACTIVE_BILLIONS)
def test_active_parameters_are_what_the_makers_print(name: str) -> None:
    shape = SHAPES[name]
    assert shape.experts > shape.experts_per_token > 0
    active = text_params(shape) + shape.vocab * shape.hidden
    assert active / 1e9 == pytest.approx(ACTIVE_BILLIONS[name], rel=0.02)


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_what_sees_pictures_has_a_vision_tower(model: Model) -> None:
    if model.shape is not None:
        assert model.vision == (model.shape.vision_params > 0)


@pytest.mark.parametrize("name", SHAPES)
def test_heads_are_shared_evenly(name: str) -> None:
    shape = SHAPES[name]
    assert shape.heads % shape.kv_heads == 0
    assert shape.vision_params < shape.num_params


def test_cache_of_known_models() -> None:
    """56 KiB a token of Qwen2.5-7B, 128 KiB of Llama-3.1-8B: two of keys and values in bf16."""
    assert kv_bytes_per_token(SHAPES["qwen2_5_7b"]) == 56 * 1024
    assert kv_bytes_per_token(SHAPES["llama3_1_8b"]) == 128 * 1024


def test_a_shape_that_nobody_could_check_makes_declared_numbers() -> None:
    assert origin_of(SHAPES["qwen2_5_vl_7b"]) == "formula"
    assert origin_of(SHAPES["llava_onevision_7b"]) == "declared"


@pytest.mark.parametrize(
    ("name", "side"),
    [("qwen2_5_vl_7b", 28), ("qwen3_vl_8b", 32), ("gemma3_4b", 56), ("internvl3_8b", 28)],
)
def test_an_image_token_stands_for_a_square(name: str, side: int) -> None:
    shape: Shape = SHAPES[name]
    assert shape.patch * shape.merge == side


# ---- sources and benchmarks ------------------------------------------------------------------------------------------


def sets(module: str) -> dict[str, Source]:
    stages = loaded(ROOT / "stdlib" / f"{module}.omr").stages
    return {stage.spec.name: stage.spec for stage in stages if isinstance(stage.spec, Source)}


SOURCES, BENCHMARKS = sets("sources"), sets("benchmarks")


@pytest.mark.parametrize("spec", [*SOURCES.values(), *BENCHMARKS.values()], ids=lambda s: s.name)
def test_a_set_maps_what_is_asked_and_answered_and_says_what_it_contains(spec: Source) -> None:
    assert "question" in spec.columns
    assert {"answer", "response"} & set(spec.columns)
    assert spec.contains
    assert spec.rows is None or spec.assume.rows is None


@pytest.mark.parametrize("spec", BENCHMARKS.values(), ids=lambda spec: spec.name)
def test_a_benchmark_says_how_many_rows_it_has(spec: Source) -> None:
    assert spec.benchmark
    assert spec.rows


def test_the_paper_makes_about_25_thousand_generations() -> None:
    """Its twelve image columns are 24.8k rows, with CharXiv's four descriptive questions of 1,000 charts; its text sets 678."""
    images = [name for name, spec in BENCHMARKS.items() if "images" in spec.columns]
    images.remove("puzzle_vqa")
    assert len(images) == 11 + 4
    rows = {name: spec.rows or 0 for name, spec in BENCHMARKS.items()}
    assert sum(rows[name] for name in images) == pytest.approx(24_800, rel=0.01)
    assert 8 * rows["aime24"] + 8 * rows["aime25"] + rows["gpqa_diamond"] == 678


def test_a_conversation_is_read_by_its_fields() -> None:
    raw = {
        "image": "chartqa/1.png",
        "conversations": [
            {"from": "human", "value": "How many?"},
            {"from": "gpt", "value": "<SUMMARY> … </SUMMARY> <CONCLUSION> 4 </CONCLUSION>"},
        ],
    }
    columns = SOURCES["llava_cot"].columns
    found = {name: evaluate(expression.tree, raw) for name, expression in columns.items()}
    assert found == {"question": "How many?", "answer": "4", "images": ["chartqa/1.png"]}


def test_choices_of_gpqa_hold_the_answer_in_an_order_of_the_seed() -> None:
    raw = {"Question": "Which?", "Correct Answer": "a"}
    raw |= {f"Incorrect Answer {n}": letter for n, letter in enumerate("bcd", 1)}
    columns = BENCHMARKS["gpqa_diamond"].columns
    options = evaluate(columns["options"].tree, raw)
    assert sorted(options) == ["a", "b", "c", "d"]
    assert options == evaluate(columns["options"].tree, raw)
    assert evaluate(columns["answer"].tree, raw) in options


def test_a_letter_becomes_the_text_of_its_option() -> None:
    answer = BENCHMARKS["mathvision"].columns["answer"].tree
    assert evaluate(answer, {"answer": "B", "options": ["1", "2"]}) == "2"
    assert evaluate(answer, {"answer": "7", "options": []}) == "7"
