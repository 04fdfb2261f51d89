"""Out of memory: which step, what the plan has for it, which settings take less, and that a re-run goes on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import drive
import plans
import pytest

from omr_runtime import supervise
from omr_runtime.executor import execute
from omr_runtime.progress import PlainDisplay
from omr_runtime.shortage import oom_kills, told
from omr_runtime.store import State, read_index
from omr_runtime.train import launch
from omrlang.estimate.memory import Job, measure
from omrlang.plan import Costs, Memory, Money, PlanStage
from omrlang.schema import Spec
from omrlang.types import Amount, Checkpoint, Constant, CrossEntropy, Fsdp, Lora, Shape, Vllm, Zero
from tests.test_rl import rl_spec
from tests.training_parts import sft_spec

SHAPE = Shape(
    num_params=1_500_000_000, layers=28, hidden=1536, heads=12, kv_heads=2, head_dim=128,
    vocab=151_936, intermediate=8960,
)  # fmt: skip


def costs(memory: Memory) -> Costs:
    nothing = plans.NOTHING
    return Costs(
        rows_in=nothing, rows_out=nothing, tokens=nothing, seconds=nothing, gpu_hours=nothing,
        usd=Money(lo=None, mid=None, hi=None, origin="unknown"), memory=memory,
    )  # fmt: skip


def stage(spec: Any, job: Job | None = None) -> PlanStage:
    return PlanStage(
        address=f"{spec.kind}.{spec.name}", name=spec.name, spec=spec, fingerprint="f" * 32, parents=(),
        action="new", costs=costs(measure(job)) if job is not None else None,
    )  # fmt: skip


# ---- what is said --------------------------------------------------------------------------------------------------


def test_one_step_behind_the_engines_weights_can_be_saved(tmp_path: Path) -> None:
    spare: dict[str, Any] = {"recompute": True, "adapter": Lora(rank=4, alpha=8)}
    specs = [rl_spec(behind=steps, **spare) for steps in (0, 1)]
    texts = [told(stage(spec), "out of memory", tmp_path) for spec in specs]
    said = "`behind = 0` (engine, engine weights; trains otherwise)"
    assert [said in text for text in texts] == [False, True]


def test_the_settings_of_the_biggest_parts_come_first(tmp_path: Path) -> None:
    job = Job(SHAPE, 32_768, processes=4, capacity=80 * 2.0**30)
    spec = sft_spec(pack=32_768, processes=4)
    text = told(stage(spec, job), "out of memory in step 3 of 6", tmp_path)
    parts = measure(job).parts
    biggest = max(parts, key=lambda name: parts[name].mid or 0)
    assert biggest == "checkpoints"
    assert text.startswith("out of memory in step 3 of 6; the plan has ")
    assert (
        f"of 80.0 for it, most of it checkpoints {(parts['checkpoints'].mid or 0) / 2**30:,.1f}"
        in text
    )
    less = text[text.index("less take") :]
    assert less.index("micro_batch = 16_384") < less.index("sharding = zero")
    assert "`recompute = true` (checkpoints)" in less
    assert "pack" not in less, "what trains otherwise comes last"
    assert text.endswith("no checkpoint was written yet, so a re-run trains from the start")


def test_states_come_first_where_they_are_most(tmp_path: Path) -> None:
    text = told(stage(sft_spec(processes=4), Job(SHAPE, 128, processes=4)), "x", tmp_path)
    less = text[text.index("less take") :]
    assert less.startswith("less take `sharding = zero(3)` (weights, gradients, optimiser)")


@pytest.mark.parametrize(
    ("spec", "has", "has_not"),
    [
        (sft_spec(loss=CrossEntropy(fused=False)), "cross_entropy(fused = true)", "zero("),
        (sft_spec(recompute=True), "micro_batch = 64", "recompute"),
        (sft_spec(micro_batch=64), "micro_batch = 32", "micro_batch = 64"),
        (sft_spec(processes=2, sharding=Zero(stage=3)), "processes = 1", "zero("),
        (
            sft_spec(processes=2, sharding=Fsdp(reshard_after_forward=False)),
            "sharding.reshard_after_forward = true",
            "zero(",
        ),
        (sft_spec(processes=2, sharding=Fsdp()), "processes = 1", "sharding"),
        (rl_spec(engine=Vllm(gpu_memory=0.9)), "engine = vllm(gpu_memory = 0.7)", "pack"),
        (rl_spec(), "engine = transformers(batch = 32)", "vllm"),
        (rl_spec(micro_batch=72, recompute=True), "max_response = 4", "micro_batch"),
    ],
)
def test_only_settings_that_can_still_be_lowered(
    tmp_path: Path, spec: Any, has: str, has_not: str
) -> None:
    text = told(stage(spec), "x", tmp_path)
    assert has in text
    assert has_not not in text


def test_a_stage_that_does_not_train(tmp_path: Path) -> None:
    assert told(stage(plans.shapes("many", 3)), "out of memory", tmp_path) == "out of memory"


# ---- the kernel's count --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "file"),
    [
        ("0::/job/step", "job/step/memory.events"),
        ("0::/job/step", "memory.events"),
        ("4:memory:/job\n0::/", "memory/job/memory.oom_control"),
        ("9:cpu,memory:/job\n1:name=systemd:/", "memory/memory.oom_control"),
    ],
)
def test_the_kernels_count_is_found(tmp_path: Path, lines: str, file: str) -> None:
    (tmp_path / "cgroup").write_text(lines)
    path = tmp_path / "fs" / file
    path.parent.mkdir(parents=True)
    path.write_text("oom 5\noom_kill_disable 0\noom_kill 3\n")
    assert oom_kills(tmp_path / "cgroup", tmp_path / "fs") == 3


def test_no_count_is_none(tmp_path: Path) -> None:
    assert oom_kills(tmp_path / "none", tmp_path) is None
    (tmp_path / "cgroup").write_text("0::/here")
    assert oom_kills(tmp_path / "cgroup", tmp_path) is None


# ---- a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(launch, "MODULE", "breaking_stage")
    monkeypatch.setenv("PYTHONPATH", drive.ROOTS[0])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return monkeypatch


def specs() -> list[Spec]:
    training = {
        "name": "tuned", "seed": 7, "rows": "puzzles", "model": plans.TINY, "prompt": plans.PROMPT, "pack": 128,
        "batch": Amount(value=2, unit="packs"), "steps": 4, "lr": Constant(peak=1e-3), "precision": "fp32",
        "checkpoint": Checkpoint(every=2),
    }  # fmt: skip
    return [plans.shapes("puzzles", 12), plans.Sft.model_validate(training)]


def run(folder: Path) -> tuple[int, str]:
    out, state = io.StringIO(), folder / "state"
    plan = plans.plan(specs(), state, folder)
    memory = costs(measure(Job(SHAPE, 128)))
    stages = [
        s.model_copy(update={"costs": memory if s.name == "tuned" else None}) for s in plan.stages
    ]
    plan = plan.model_copy(update={"stages": tuple(stages)})
    code, _ = execute(plan, state, show=PlainDisplay(out))
    return code, out.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["gpu", "cpu"])
def test_a_training_that_runs_out_says_what_takes_less(
    tmp_path: Path, broken: pytest.MonkeyPatch, how: str
) -> None:
    broken.setenv("BREAK", how)
    broken.setenv("BREAK_AT", "3")
    code, out = run(tmp_path)
    assert code == 5, out
    said = out[out.index("stopped:") :]
    assert said.startswith("stopped: sft.tuned: out of memory in step 3 of 4; the plan has ")
    assert "most of it optimiser" in said
    assert "`micro_batch = 64`" in said
    assert "goes on from the last checkpoint, after step 2" in said
    assert "logs/tuned.log" in said
    assert "the same command goes on" in said
    assert "Traceback" not in out
    assert "Traceback" in (tmp_path / "state" / "logs" / "tuned.log").read_text()
    broken.setattr(launch, "MODULE", "omr_runtime.stages")
    code, out = run(tmp_path)
    assert code == 0, out
    assert "4 steps" in out


@pytest.mark.slow
def test_a_process_that_the_kernel_killed_for_memory(
    tmp_path: Path, broken: pytest.MonkeyPatch
) -> None:
    """The kill is real; that the kernel's count moved is not."""
    broken.setenv("BREAK", "killed")
    broken.setenv("BREAK_AT", "4")
    counts = iter(range(99))
    broken.setattr(supervise, "oom_kills", lambda: next(counts))
    code, out = run(tmp_path)
    assert code == 5, out
    assert "sft.tuned: its process was killed by the kernel for want of memory after " in out
    assert "`recompute = true`" in out
    assert "after step 2" in out
    entries = read_index(State(tmp_path / "state"))["stages"].values()
    assert [e["status"] for e in entries if e["name"] == "tuned"] == ["partial"]


@pytest.mark.slow
def test_another_kill_is_not_called_that(tmp_path: Path, broken: pytest.MonkeyPatch) -> None:
    broken.setenv("BREAK", "killed")
    broken.setenv("BREAK_AT", "1")
    broken.setattr(supervise, "oom_kills", lambda: 7)
    code, out = run(tmp_path)
    assert code == 5
    assert "its process was killed by SIGKILL, perhaps for want of memory" in out
