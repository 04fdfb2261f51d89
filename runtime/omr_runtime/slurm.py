"""A plan -> a shell script that submits it to Slurm: one job for each stretch of stages that need the same machines.

Everything that comes from a recipe, a path or an argument stands in the script as one quoted word. No secret does: the script
names the variables that the recipe reads, and Slurm takes their values from the environment of whoever submits.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from omr_runtime.train.launch import per_node_and_nodes
from omrlang.plan import Plan, PlanStage
from omrlang.references import named_models
from omrlang.types import OpenAI

MARGIN = 1.25
"""A job is given so many times the upper end of what the plan has for it, and ``START_S``."""

START_S = 600.0
NOTICE_S = 120
"""Before the end of its time a job is told; a training then saves after the step that runs."""

CPUS = 8
"""For each GPU, and for a job without one."""

MOST_REQUEUES = 50
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Machines:
    """``per_node`` GPUs on each of ``nodes``; 0 is a job without a GPU."""

    nodes: int = 1
    per_node: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """Stages that run one after another on the same machines."""

    machines: Machines
    stages: tuple[PlanStage, ...]

    @property
    def seconds(self) -> float | None:
        """The upper end of the plan; None where of any stage it is unknown."""
        ends = [
            stage.costs.seconds.hi if stage.costs is not None else None for stage in self.stages
        ]
        return None if None in ends else sum(end for end in ends if end is not None)


@dataclass(frozen=True, slots=True)
class Call:
    """How ``omr run`` was asked: ``command`` with its options on the recipe ``file``, to be typed in ``folder``; ``logs`` is
    where jobs print."""

    command: tuple[str, ...]
    file: str
    folder: str
    logs: str


def script(plan: Plan, call: Call) -> str:
    """The script as text; of a plan with nothing to do one that submits nothing. RunError where a stage's GPUs fill no nodes."""
    jobs = jobs_of(plan)
    parts = [_head(plan, jobs, call), *(_check(name) for name in variables(plan))]
    for number, job in enumerate(jobs, start=1):
        parts.append(_submission(plan, job, number, call))
    if jobs:
        parts.append('echo "submitted: ${jobs[*]}"')
    return "\n".join(parts) + "\n"


# ---- which jobs --------------------------------------------------------------------------------------------------


def jobs_of(plan: Plan) -> list[Job]:
    """The due stages as few jobs in an order in which each finds what it stands on; first always what needs no GPU."""
    waiting = list(plan.due)
    jobs: list[Job] = []
    while waiting:
        left = {stage.name for stage in waiting}
        ready = [machines_of(s) for s in waiting if not left.intersection(s.parents)]
        machines = min(ready, key=lambda one: one.nodes * one.per_node)
        taken: list[PlanStage] = []
        for stage in waiting:
            if machines_of(stage) == machines and not left.intersection(stage.parents):
                taken.append(stage)
                left.discard(stage.name)
        waiting = [stage for stage in waiting if stage.name in left]
        jobs.append(Job(machines, tuple(taken)))
    return jobs


def machines_of(stage: PlanStage) -> Machines:
    """What the stage says with ``on``; what goes to a Ray cluster is only sent from here."""
    hardware = getattr(stage.spec, "hardware", None)
    if hardware is None or hardware.gpu is None or hardware.cluster is not None:
        return Machines()
    per_node, nodes = per_node_and_nodes(hardware, stage.address)
    return Machines(nodes, per_node)


def variables(plan: Plan) -> list[str]:
    """The environment variables that the due stages cannot do without."""
    found: dict[str, None] = {}
    for stage in plan.due:
        for engine in _engines(stage):
            found |= dict.fromkeys(name for name in (engine.url_env,) if name)
        cluster = getattr(getattr(stage.spec, "hardware", None), "cluster", None)
        if cluster is not None and cluster.address_env:
            found[cluster.address_env] = None
    return [name for name in found if _NAME.fullmatch(name)]


def _engines(stage: PlanStage) -> Iterator[OpenAI]:
    """The servers that the stage asks: its own, and those of the models that it names."""
    own = getattr(stage.spec, "engine", None)
    named = [own, *(model.engine for model in named_models(stage.spec))]
    yield from (engine for engine in named if isinstance(engine, OpenAI))


# ---- its text ----------------------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """One word of bash, whatever is in the text; a line break too stays on the line.

    >>> print(quoted("a b"), quoted("it's $(x)"), quoted("a\\nb"))
    'a b' 'it'"'"'s $(x)' $'a\\nb'
    """
    if text.isprintable():
        return shlex.quote(text)
    plain = text.replace("\\", "\\\\").replace("'", "\\'")
    escaped = (c if c.isprintable() else _escape(c) for c in plain)
    return "$'" + "".join(escaped) + "'"


def _escape(letter: str) -> str:
    if letter in "\n\t\r":
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}[letter]
    return "".join(f"\\x{byte:02x}" for byte in letter.encode(errors="surrogateescape"))


def _comment(text: str) -> str:
    """Text that cannot leave its line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _head(plan: Plan, jobs: Sequence[Job], call: Call) -> str:
    lines = [
        "#!/bin/bash",
        f"# {_comment(plan.recipe)} on Slurm, written by `omr run --emit slurm` of omr {plan.omr_version}.",
        f"# `bash` this file to submit {_number_of(jobs)}.",
        "# Account, partition and the like: SBATCH_ACCOUNT, SBATCH_PARTITION, … in the environment, which sbatch reads.",
        "# The state folder must lie where all nodes see it. A stage without `on` counts as one that needs no GPU.",
        "set -euo pipefail",
        f"cd -- {quoted(call.folder)}",
        f"mkdir -p -- {quoted(call.logs)}",
        "jobs=()",
        'trap \'for job in "${jobs[@]}"; do scancel "$job"; done\' ERR  # all of it or nothing',
    ]
    return "\n".join(lines)


def _number_of(jobs: Sequence[Job]) -> str:
    if len(jobs) > 1:
        return f"{len(jobs)} jobs, each after the one before it has ended well"
    return "1 job" if jobs else "no job: all is there already"


def _check(name: str) -> str:
    return f': "${{{name}:?the recipe reads it from the environment}}"'


def _submission(plan: Plan, job: Job, number: int, call: Call) -> str:
    """An sbatch command with the job's own script; what a shell could read in that is read by the job's alone."""
    end = f"END_OF_JOB_{number}"
    options = " \\\n  ".join(_options(plan, job, number, call))
    time = _time_comment(job)
    stages = _comment(", ".join(stage.address for stage in job.stages))
    return (
        f"\n# {number}: {stages}\n{time}job=$(sbatch --parsable \\\n  {options} <<'{end}'\n"
        f'{_body(job, call)}\n{end}\n)\njobs+=("${{job%%;*}}")'
    )


def _options(plan: Plan, job: Job, number: int, call: Call) -> Iterator[str]:
    name = re.sub(r"[^\w.-]", "_", plan.recipe.rsplit("/", 1)[-1].removesuffix(".omr"))
    yield f"--job-name={quoted(f'{name}-{number}')}"
    yield f"--output={quoted(call.logs.replace('%', '%%') + '/slurm-%j.out')}"
    yield f"--nodes={job.machines.nodes}"
    yield f"--ntasks-per-node={max(1, job.machines.per_node)}"
    yield f"--cpus-per-task={CPUS}"
    if job.machines.per_node:
        yield f"--gpus-per-node={job.machines.per_node}"
    if job.seconds is not None:
        yield f"--time={math.ceil((MARGIN * job.seconds + START_S) / 60)}"
    yield f"--signal=B:USR1@{NOTICE_S}"
    yield "--requeue"
    yield "--open-mode=append"
    yield "--export=ALL"
    if number > 1:
        yield '--dependency="afterok:${jobs[-1]}"'
        yield "--kill-on-invalid-dep=yes"


def _time_comment(job: Job) -> str:
    if job.seconds is not None:
        return ""
    unknown = [s.name for s in job.stages if s.costs is None or s.costs.seconds.hi is None]
    return f"# No --time: the plan does not know how long {_comment(', '.join(unknown))} takes.\n"


def _body(job: Job, call: Call) -> str:
    """The one driver, on the first node; the shell passes Slurm's notice on to it and asks for another turn. The notice is not
    SIGTERM, which comes when somebody cancels the job, who wants no other turn."""
    selected = [word for stage in job.stages for word in ("--select", stage.name)]
    command = " ".join(quoted(word) for word in (*call.command, *selected, "--", call.file))
    return "\n".join(
        (
            "#!/bin/bash",
            f"cd -- {quoted(call.folder)} || exit 1",
            "told=0",
            "trap 'told=1; kill -TERM \"$driver\"' USR1",
            "trap 'kill -TERM \"$driver\"' TERM",
            f"{command} &",
            "driver=$!",
            # A signal breaks a wait off; only that of a driver that has ended gives its code.
            'while kill -0 "$driver" 2> /dev/null; do wait "$driver"; done',
            'wait "$driver"; code=$?',
            f'if [ "$told" = 1 ] && [ "$code" = 5 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {MOST_REQUEUES} ]; then',
            '  scontrol requeue "$SLURM_JOB_ID"',
            "fi",
            'exit "$code"',
        )
    )
