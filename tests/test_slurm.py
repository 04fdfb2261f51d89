"""The script for Slurm: its jobs, its quoting, and a run of it over stand-ins for Slurm's programs (slurm_stand_in.py)."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import drive
import plans
import pytest

from omr_runtime import lineage
from omr_runtime.errors import RunError
from omr_runtime.slurm import Call, Machines, jobs_of, quoted, script, variables
from omr_runtime.store import State, read_index
from omr_runtime.train.launch import command
from omr_runtime.work import Shards
from omrlang.plan import Costs, Estimate, Money, Plan
from omrlang.schema import Spec
from omrlang.types import Gpu, Hardware, OpenAI, TrainedModel
from tests.test_stop import assert_same_weights
from tests.training_parts import sft_spec, sft_work

GPU = Gpu(name="g", memory_gib=80, tflops=300, bandwidth_tb_s=2)
POD = Hardware(name="pod", gpu=GPU, count=16, per_node=8)
CALL = Call(("omr", "run", "--state=.omr"), "x.omr", "/somewhere", "/somewhere/logs")


def training(hardware: Hardware | None, name: str = "tuned", rows: str = "words") -> Spec:
    spec = sft_spec(name=name, rows=rows, model=plans.TINY, hardware=hardware)
    return plans.Sft.model_validate(spec.model_dump())


def judging(hardware: Hardware | None, **changes: Any) -> Spec:
    settings = {
        "name": "after", "seed": 1, "rows": ("words",), "model": TrainedModel(stage="tuned"), "prompt": plans.PROMPT,
        "temperature": 0.0, "max_tokens": 4, "hardware": hardware,
    }  # fmt: skip
    return plans.Eval.model_validate(settings | changes)


def plan_of(*specs: Spec, seconds: float | None = 3_600.0) -> Plan:
    plan = plans.plan(specs, Path("nowhere"), Path("nowhere"))
    none = plans.NOTHING
    took = Estimate(lo=1.0, mid=2.0, hi=seconds, unit="s", origin="assumed")
    costs = Costs(
        rows_in=none, rows_out=none, tokens=none, seconds=took, gpu_hours=none,
        usd=Money(lo=None, mid=None, hi=None, origin="unknown"),
    )  # fmt: skip
    stages = tuple(stage.model_copy(update={"costs": costs}) for stage in plan.stages)
    return plan.model_copy(update={"stages": stages})


def words_of(text: str) -> list[list[str]]:
    """The words of each sbatch command."""
    found = text.replace("\\\n", " ").splitlines()
    return [
        shlex.split(line.partition("job=$(")[2].partition(" <<")[0])
        for line in found
        if "sbatch --parsable" in line
    ]


# ---- jobs ----------------------------------------------------------------------------------------------------------


def test_stages_with_the_same_machines_are_a_job() -> None:
    words, other = plans.shapes("words", 9), plans.shapes("other", 9, seed=9)
    last = plans.mix("last", ["other"])
    small = Hardware(name="one", gpu=GPU, count=8)
    plan = plan_of(words, training(POD), judging(small), other, last)
    jobs = [(job.machines, [stage.name for stage in job.stages]) for job in jobs_of(plan)]
    assert jobs == [
        (Machines(), ["words", "other", "last"]),
        (Machines(2, 8), ["tuned"]),
        (Machines(1, 8), ["after"]),
    ]
    first, second, third = words_of(script(plan, CALL))
    assert "--gpus-per-node=8" not in first
    assert {
        "--nodes=2",
        "--ntasks-per-node=8",
        "--gpus-per-node=8",
        "--dependency=afterok:${jobs[-1]}",
    } <= set(second)
    assert "--dependency=afterok:${jobs[-1]}" in third
    for job in (first, second, third):
        assert {"--requeue", "--signal=B:USR1@120", "--export=ALL"} <= set(job)
    assert f"--time={round((1.25 * 3 * 3_600 + 600) / 60)}" in first, (
        "three stages of an hour at most"
    )


def test_an_unknown_time_is_left_out_and_said() -> None:
    text = script(plan_of(plans.shapes("words", 9), seconds=None), CALL)
    assert "--time=" not in text
    assert "# No --time: the plan does not know how long words takes." in text


def test_nothing_to_do_submits_nothing() -> None:
    text = script(plan_of().model_copy(update={"stages": ()}), CALL)
    assert "sbatch --parsable" not in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_gpus_that_fill_no_nodes_are_an_error() -> None:
    odd = Hardware(name="odd", gpu=GPU, count=12, per_node=8)
    with pytest.raises(RunError, match=r"sft\.tuned: 12 devices of `odd` do not fill nodes of 8"):
        script(plan_of(plans.shapes("words", 9), training(odd)), CALL)


def test_secrets_are_named_and_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFEREE_URL", "http://somebody:hunter2@referee")
    engine = OpenAI(url_env="REFEREE_URL", key_env="REFEREE_KEY")
    text = script(
        plan_of(plans.shapes("words", 9), training(None), judging(None, engine=engine)), CALL
    )
    assert "hunter2" not in text
    assert ': "${REFEREE_URL:?' in text


def test_servers_that_only_cached_stages_ask_are_not_needed() -> None:
    sampled = plans.shapes("words", 9)
    asked = judging(None, engine=OpenAI(url_env="REFEREE_URL", key_env="REFEREE_KEY"))
    model = plans.TINY.model_copy(update={"engine": OpenAI(url_env="TEACHER_URL", key_env="KEY")})
    taught = plans.Sft.model_validate(
        sft_spec(name="tuned", rows="words", model=model, hardware=None).model_dump()
    )
    plan = plan_of(sampled, taught, asked)
    assert variables(plan) == ["TEACHER_URL", "REFEREE_URL"]
    stages = [
        stage.model_copy(update={"action": "cached"}) if stage.name == "tuned" else stage
        for stage in plan.stages
    ]
    assert variables(plan.model_copy(update={"stages": tuple(stages)})) == ["REFEREE_URL"]


EVIL = [
    'it\'s $(touch pwned) `touch pwned` "x"',
    "a\nEND_OF_JOB_1\ntouch pwned\n",
    "-x; touch pwned #",
    "\\'; touch pwned; '\x1b[0m",
    "é \N{HEAVY CHECK MARK} %j",
]


@pytest.mark.parametrize("evil", EVIL)
def test_a_name_is_never_code(tmp_path: Path, evil: str) -> None:
    """Each word arrives as it was; nothing of it is run, neither by the script nor by a job's own."""
    assert subprocess.check_output(["bash", "-c", f"printf %s {quoted(evil)}"], text=True) == evil
    plan = plan_of(plans.shapes("words", 9)).model_copy(update={"recipe": f"{evil}.omr"})
    call = Call(("printf", "%s\\n"), f"{evil}.omr", str(tmp_path), f"{tmp_path}/{evil[:8]}")
    done = submit(tmp_path, script(plan, call))
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("pwned"))
    (out,) = tmp_path.rglob("slurm-1.out")
    assert out.read_text() == f"--select\nwords\n--\n{evil}.omr\n"


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_driver_that_a_signal_ended_ends_its_job(tmp_path: Path, number: signal.Signals) -> None:
    """Its code looks as that of a wait that a signal broke off; the job must not wait for it until its time is over."""
    call = Call(("bash", "-c", f"kill -{int(number)} $$"), "x.omr", str(tmp_path), str(tmp_path))
    text = script(plan_of(plans.shapes("words", 9)), call)
    _, _, rest = text.partition("<<'END_OF_JOB_1'\n")
    job = rest.partition("\nEND_OF_JOB_1")[0]
    done = subprocess.run(["bash"], input=job, text=True, timeout=60, check=False)
    assert done.returncode == 128 + number


def test_how_many_jobs() -> None:
    words = plans.shapes("words", 9)
    assert "submit 1 job.\n" in script(plan_of(words), CALL)
    assert "submit 2 jobs, each after" in script(plan_of(words, training(POD)), CALL)
    assert "submit no job" in script(plan_of().model_copy(update={"stages": ()}), CALL)


def submit(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    path = folder / "submit.sh"
    path.write_text(text)
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    env = {**os.environ, **stand_ins(folder)}
    return subprocess.run(["bash", str(path)], env=env, capture_output=True, text=True, check=False)


def stand_ins(folder: Path) -> dict[str, str]:
    """The environment in which Slurm's programs are the stand-ins."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    source = Path(__file__).with_name("slurm_stand_in.py").read_text()
    for name in ("sbatch", "srun", "scontrol"):
        (programs / name).write_text(f"#!{sys.executable}\n{source}")
        (programs / name).chmod(0o755)
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "STAND_IN": str(programs),
        "PYTHONPATH": os.pathsep.join(drive.ROOTS),
        "OMP_NUM_THREADS": "1",
    }


# ---- several nodes -------------------------------------------------------------------------------------------------


def test_several_nodes_need_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = sft_work(tmp_path, tmp_path, [], sft_spec(hardware=POD))
    monkeypatch.delenv("SLURM_JOB_NUM_NODES", raising=False)
    with pytest.raises(
        RunError, match=r"its hardware is 2 nodes, and this is no Slurm job; `omr run FILE --emit"
    ):
        command(work, "w.json")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    with pytest.raises(RunError, match="this is a Slurm job of 1"):
        command(work, "w.json")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "localhost*2")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    for name, value in stand_ins(tmp_path).items():
        monkeypatch.setenv(name, value)
    argv, env = command(work, "w.json")
    assert argv == [
        "srun", "--nodes=2", "--ntasks=16", "--ntasks-per-node=8", "--gpus-per-node=8", "--cpus-per-task=4",
        "--distribution=block", "--kill-on-bad-exit=1", "--export=ALL", sys.executable, "-m", "omr_runtime.train.task", "w.json",
    ]  # fmt: skip
    assert env["MASTER_ADDR"] == "localhost"
    assert int(env["MASTER_PORT"]) > 1_023


RECIPE = """\
omr 1

use std.formats

seed = 3

gpu mine {
  memory    = 80 GiB
  compute   = 300 TFLOP / s
  bandwidth = 2 TB / s
}

hardware desk = 2 * mine {
  per_node = 1
}

model tiny = fresh("qwen2", layers = 1, hidden = 32, heads = 2, vocabulary = characters, seed = 1) {
  precision = fp32
}

source sums from jsonl("sums.jsonl") {
  columns {
    question = problem
    thinking = working
    answer   = text(result)
  }
}

mix questions from [sums: all]

sft cold_start from questions with tiny on desk {
  prompt    = formats.think_answer_short
  pack      = 256
  batch     = 4 packs
  steps     = STEPS
  lr        = cosine(1e-3)
  precision = fp32
  checkpoint { every = 10_000 steps, keep = 1 }
}
"""


def recipe(folder: Path, name: str, steps: int, per_node: int = 1) -> Path:
    lines = [
        json.dumps({"problem": f"{i}+{i}", "working": f"{i}+{i}={2 * i}", "result": 2 * i})
        for i in range(60)
    ]
    (folder / "sums.jsonl").write_text("\n".join(lines))
    path = folder / name
    path.write_text(
        RECIPE.replace("STEPS", str(steps)).replace("per_node = 1", f"per_node = {per_node}")
    )
    return path


def omr(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "omrlang", *words]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(drive.ROOTS), "OMP_NUM_THREADS": "1"}
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)


def trained(state: State) -> str:
    index = read_index(state)["stages"]
    return next(mark for mark, entry in index.items() if entry["name"] == "cold_start")


def losses(state: State) -> list[float]:
    shards = Shards(state.artifact(trained(state))).read()
    lines = lineage.read_parquet(
        [shard.files["metric"] for shard in shards if "metric" in shard.files]
    )
    return [line["value"] for line in lines if line["name"] in ("loss", "grad_norm")]


@pytest.mark.slow
def test_two_nodes_train_as_one_machine_does(tmp_path: Path) -> None:
    """Stand-ins for Slurm, but its two tasks are real ranks over gloo that find each other as on two nodes."""
    plain = State(tmp_path / "plain")
    done = omr(
        tmp_path, "run", recipe(tmp_path, "plain.omr", 6, per_node=2).name, "--state", "plain"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    name = "it's $(touch pwned).omr"
    recipe(tmp_path, name, 6)
    state = State(tmp_path / "the state's")
    done = omr(
        tmp_path, "run", name, "--emit", "slurm", "-o", "submit.sh", f"--state={state.folder.name}"
    )
    assert done.returncode == 0, done.stderr
    assert not state.lineage.exists(), "nothing is run"
    done = submit(tmp_path, (tmp_path / "submit.sh").read_text())
    logs = "".join(path.read_text() for path in state.folder.glob("logs/*.out"))
    assert done.returncode == 0, done.stderr + logs
    assert "submitted: 1 2" in done.stdout
    assert [path.read_text() for path in sorted((tmp_path / "programs").glob("ended-*"))] == [
        "0",
        "0",
    ], logs
    assert not list(tmp_path.rglob("pwned"))
    calls = [
        json.loads(line) for line in (tmp_path / "programs" / "calls").read_text().splitlines()
    ]
    assert [call[0] for call in calls] == ["sbatch", "sbatch", "scontrol", "srun"]
    assert {"--nodes=2", "--ntasks=2"} <= set(calls[-1])
    assert trained(state) == trained(plain)
    assert losses(state) == losses(plain)
    assert_same_weights(state.model(trained(state)), plain.model(trained(plain)))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM], ids=["notice", "cancelled"])
def test_a_job_that_is_told_saves(tmp_path: Path, number: signal.Signals) -> None:
    """Slurm tells the batch shell; only after its notice there is another turn."""
    recipe(tmp_path, "x.omr", 3_000)
    assert omr(tmp_path, "run", "x.omr", "--emit", "slurm", "-o", "submit.sh").returncode == 0
    env = {**os.environ, **stand_ins(tmp_path)}
    process = subprocess.Popen(["bash", "submit.sh"], cwd=tmp_path, env=env)
    state = State(tmp_path / ".omr")
    while process.poll() is None and not any(
        '"steps"' in path.read_text() for path in state.folder.glob("work/*.progress")
    ):
        time.sleep(0.05)
    os.kill(int((tmp_path / "programs" / "batch").read_text()), number)
    process.wait(timeout=120)
    calls = [
        json.loads(line) for line in (tmp_path / "programs" / "calls").read_text().splitlines()
    ]
    assert (["scontrol", "requeue", "2"] in calls) == (number == signal.SIGUSR1)
    assert (tmp_path / "programs" / "ended-2").read_text() == "5"
    out = (state.folder / "logs" / "slurm-2.out").read_text()
    assert "asked to stop; saved after step" in out, out
    assert len(list(state.checkpoints(trained(state)).glob("step-*"))) == 1
