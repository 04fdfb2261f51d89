"""Result files of lm-eval and lmms-eval, in the form that their documentation gives."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from test_tournament import finished, scores

from omr_runtime.errors import RunError
from omr_runtime.report.official import official_line
from omrlang.cli import main
from omrlang.published.tasks import LMMS_EVAL

RESULTS: dict[str, Any] = {
    "results": {
        "aime_agg8": {" ": " ", "alias": "aime_agg8"},
        "mathvista_testmini_cot_reward": {
            "alias": "mathvista_testmini_cot_reward",
            "acc_score,none": 0.748,
            "acc_score_stderr,none": 0.0137,
            "format_score,none": 0.99,
            "format_score_stderr,none": "N/A",
        },
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.5,
            "exact_match_stderr,strict-match": 0.01,
            "exact_match,flexible-extract": 0.6,
            "exact_match_stderr,flexible-extract": 0.01,
        },
    },
    "group_subtasks": {"aime_agg8": []},
    "configs": {},
    "versions": {"gsm8k": 3.0},
    "n-shot": {"gsm8k": 5},
    "higher_is_better": {"gsm8k": {"exact_match": True}},
    "n-samples": {"gsm8k": {"original": 1319, "effective": 1319}},
    "config": {"model": "vllm", "model_args": "pretrained=x"},
    "model_name": "OpenMMReasoner-ColdStart",
}


def written(folder: Path, data: object) -> Path:
    path = folder / "results_2026.json"
    path.write_text(json.dumps(data))
    return path


def test_tasks_become_columns(tmp_path: Path) -> None:
    line = official_line(written(tmp_path, RESULTS))
    assert (line.name, line.kind, line.origin) == (
        "OpenMMReasoner-ColdStart",
        "official",
        "results_2026.json",
    )
    assert set(line.cells) == {"mathvista", "gsm8k"}
    cell = line.cells["mathvista"]
    assert (cell.value, cell.lo) == (
        pytest.approx(74.8),
        pytest.approx(74.8 - 1.96 * 1.37, abs=0.01),
    )
    assert (line.cells["gsm8k"].value, line.cells["gsm8k"].num_questions) == (50.0, 1319)


def test_a_standard_error_may_be_missing(tmp_path: Path) -> None:
    figures = {"acc,none": 0.25, "acc_stderr,none": "N/A"}
    cell = official_line(written(tmp_path, {"results": {"x": figures}})).cells["x"]
    assert (cell.value, cell.lo, cell.hi) == (25.0, None, None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no `results`"),
        ({"results": {}}, "no task with results"),
        (
            {"results": {"x": {"gpt_score,none": 61.0}}},
            "task `x` has none of .*it has gpt_score,none",
        ),
        ({"results": {"x": {"acc,none": 61.0}}}, "`acc,none` is 61; an accuracy in 0 .. 1"),
    ],
)
def test_what_is_not_as_documented_is_said(tmp_path: Path, data: object, message: str) -> None:
    with pytest.raises(RunError, match=message):
        official_line(written(tmp_path, data))


def test_no_json_is_said(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"results": ')
    with pytest.raises(RunError, match="not readable as JSON"):
        official_line(tmp_path / "cut.json")


def test_the_command_puts_them_beside_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = finished(tmp_path, {"after": {"gsm8k": scores(0.4)}})
    path = written(tmp_path, RESULTS)
    assert main(["show", "tournament", "--state", str(state), "--with", str(path), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["model"], line["kind"]) for line in lines[:2]] == [
        ("teacher", "measured"),
        ("OpenMMReasoner-ColdStart", "official"),
    ]
    assert lines[1]["origin"] == "results_2026.json"
    assert main(["show", "tournament", "--state", str(state), "--with", "gone.json"]) == 1
    assert "gone.json: not readable" in capsys.readouterr().err


# ---- the commands --------------------------------------------------------------------------------


def commands(capsys: pytest.CaptureFixture[str], recipe: Path) -> list[str]:
    assert main(["plan", str(recipe), "--official", "--state", "state"]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_published_recipe_is_scored_by_its_own_tasks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).parents[1] / "pipelines" / "openmmreasoner" / "openmmreasoner.omr"
    asked = [shlex.split(line) for line in commands(capsys, root) if line.startswith("lmms_eval ")]
    tasks = {task for words in asked for task in words[words.index("--tasks") + 1].split(",")}
    assert tasks == set(LMMS_EVAL.values())
    for words in asked:
        assert "max_new_tokens=49152" in words[words.index("--gen_kwargs") + 1]


def test_commands_say_what_nobody_can_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    (tmp_path / "r.omr").write_text(
        "omr 1\n\nuse std.benchmarks\nuse std.formats\n\n"
        'model tiny = fresh("qwen2", layers = 2, hidden = 64, heads = 4, vocabulary = characters)\n\n'
        'model served = hf("a/b", revision = "r1")\n\n'
        'benchmark own from jsonl("q.jsonl")\n\n'
        "eval fresh_one from [benchmarks.gsm8k] with tiny {\n"
        "  prompt = formats.think_answer\n  temperature = 0\n  max_tokens = 64\n}\n\n"
        "eval known = fresh_one with served\n\n"
        "eval unknown = fresh_one from [own] with served\n"
    )
    found = commands(capsys, tmp_path / "r.omr")
    assert "# eval fresh_one: no official program can load its model" in found
    assert "# eval unknown: no official program has a task for own" in found
    (line,) = [line for line in found if line.startswith("lm_eval ")]
    assert "pretrained=a/b,revision=r1 --tasks gsm8k" in line
    assert "max_gen_toks=64" in line
    assert found[-1].endswith("omr show tournament --with official/known/…/results.json")
