"""Validation during reinforcement: figures at their steps, by the scorer that is set, and a training that does not notice."""

from __future__ import annotations

import json
from itertools import filterfalse
from pathlib import Path
from typing import Any

import pytest
import torch
from test_rl import made, metric, number, table, weights
from training_parts import drawn_rows, fresh_folder, killed_after_saving, of_a_clock

from omr_runtime.stages.eval import default_score
from omr_runtime.train import rl
from omr_runtime.work import InputRows, Shards, Work
from omrlang.types import Binary, Call, Col, ExprNode, Lit, RowSets, Watch

SHORT: ExprNode = Binary(op="<", left=Call(fn="len", args=(Col(name="response"),)), right=Lit(value=23))  # fmt: skip
SCORE = number(Binary(op="*", left=SHORT, right=Lit(value=1)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = fresh_folder(tmp_path_factory.mktemp("base"))
    return folder


def watched(state: Path, base: Path, sets: int = 1, watch: bool = True, **changes: Any) -> Work:
    """A run of four steps that looks at held-out puzzles before the first step and after every second."""
    names = [f"held_out_{k}" for k in range(sets)]
    settings = {"every": 2, "rows": RowSets(names=tuple(names)), "score": SCORE, **changes}
    work = made(state, base, watch=Watch.model_validate(settings) if watch else None)
    others = []
    for k, name in enumerate(names):
        rows = [{**row, "id": f"{name}-{row['id']}"} for row in drawn_rows(state, 5, seed=20 + k)]
        Shards(state / "store" / name).write(0, {"row": rows})
        others.append(InputRows(name=name, fingerprint=name, folder=str(state / "store" / name)))
    return work.model_copy(update={"others": tuple(others)})


def figures(work: Work, name: str) -> dict[int, float]:
    return {line["step"]: line["value"] for line in table(work, "metric") if line["name"] == name}


def training(work: Work) -> list[dict[str, Any]]:
    """The figures of the steps themselves, without what a clock says."""
    lines = table(work, "metric")
    return [
        line
        for line in lines
        if not of_a_clock(line["name"]) and not line["name"].startswith("watch/")
    ]


def test_the_training_does_not_notice(tmp_path: Path, base: Path) -> None:
    """Also where answers are drawn, several a question: what a run learns hangs on its own rows alone."""
    plain = watched(tmp_path / "plain", base, watch=False)
    seen = watched(tmp_path / "seen", base, every=1, n=2, temperature=1.0, top_p=0.9)
    rl.train(plain)
    rl.train(seen)
    assert training(seen) == training(plain)
    assert table(seen, "rollout") == table(plain, "rollout")
    assert table(seen, "use") == table(plain, "use")
    for name, tensor in weights(plain).items():
        assert torch.equal(tensor, weights(seen)[name])


def test_figures_stand_at_their_steps(tmp_path: Path, base: Path) -> None:
    work = watched(tmp_path, base, sets=2)
    rl.train(work)
    for name in ("accuracy", "accuracy_lo", "mean_response_tokens", "format_rate"):
        assert sorted(figures(work, f"watch/{name}")) == [0, 2, 4]
    both = [figures(work, f"watch/held_out_{k}/accuracy") for k in (0, 1)]
    whole = figures(work, "watch/accuracy")
    for step in (0, 2, 4):
        assert whole[step] == pytest.approx((both[0][step] + both[1][step]) / 2)
    assert set(figures(work, "watch/num_unscored").values()) == {0}
    summary = json.loads((Path(work.out) / "done.json").read_text())["metrics"]["watch"]
    assert [entry["step"] for entry in summary] == [0, 2, 4]
    assert [entry["accuracy"] for entry in summary] == list(whole.values())


def test_it_is_scored_as_an_eval_scores_where_nothing_is_said(tmp_path: Path, base: Path) -> None:
    work = watched(tmp_path, base, score=default_score())
    rl.train(work)
    assert set(figures(work, "watch/accuracy").values()) == {0.0}, (
        "an untrained model is never right"
    )


def test_what_is_rewarded_shows_on_rows_that_are_not_trained_on(tmp_path: Path, base: Path) -> None:
    work = watched(tmp_path, base, temperature=1.0, n=4)
    spec = work.stage.spec.model_copy(update={"steps": 12, "group": 8})
    rl.train(work.model_copy(update={"stage": work.stage.model_copy(update={"spec": spec})}))
    found = figures(work, "watch/accuracy")
    assert found[12] > found[0] + 0.2


def test_a_stopped_run_looks_at_no_step_twice(tmp_path: Path, base: Path) -> None:
    whole, stopped = (watched(tmp_path / name, base) for name in ("whole", "stopped"))
    rl.train(whole)
    with killed_after_saving(3):
        rl.train(stopped)
    assert sorted(figures(stopped, "watch/accuracy")) == [0, 2]
    rl.train(stopped)
    names = {line["name"] for line in table(whole, "metric")}
    for name in filterfalse(of_a_clock, names):
        assert figures(stopped, name) == figures(whole, name)
        assert len(metric(stopped, name)) == len(figures(whole, name)), "each step once"
    ends = [json.loads((Path(work.out) / "done.json").read_text())["metrics"]["watch"] for work in (whole, stopped)]  # fmt: skip
    assert ends[0] == ends[1]
