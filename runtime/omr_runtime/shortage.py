"""A stage that ran out of memory -> what a person reads: where it was, what the plan has for it, which settings take less.

Knows the memory of errors, of the kernel's own killings and of plans; imports nothing heavy, since the driver asks too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omr_runtime.errors import OutOfMemory, is_out_of_memory
from omrlang.plan import Memory, PlanStage
from omrlang.schema import Rl, Sft
from omrlang.settle import RL_PASS, num_devices
from omrlang.types import Fsdp, Transformers, Vllm

GIB = 2.0**30
MOST_PARTS = 4
MOST_SETTINGS = 4
PASS = ("checkpoints", "layer", "vision", "logits")
"""The parts of a plan's memory that grow with the tokens of a forward pass."""
STATES = ("weights", "gradients", "optimiser")


@dataclass(frozen=True, slots=True)
class Lower:
    """A setting that takes less of some parts; ``alters`` is set where it trains otherwise too."""

    setting: str
    parts: tuple[str, ...]
    alters: bool = False


@contextlib.contextmanager
def in_step(step: int, num_steps: int) -> Iterator[None]:
    """What runs out of memory within says in which step."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory(f"out of memory in step {step:,} of {num_steps:,}") from error
        raise


def told(stage: PlanStage, what: str, checkpoints: Path) -> str:
    """The whole message; ``what`` happened is its beginning, ``checkpoints`` the folder of this stage's."""
    memory = stage.costs.memory if stage.costs is not None else None
    parts = [what, _planned(memory), _lowered(stage, memory), _goes_on(stage, checkpoints)]
    return "; ".join(part for part in parts if part)


def oom_kills(
    mine: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """How many processes the kernel has killed in this process's cgroup for want of memory; None where nobody says."""
    try:
        lines = mine.read_text().splitlines()
    except OSError:
        return None
    counters = [path for line in lines for path in _counters(line, mounted)]
    return next((n for n in map(_count, counters) if n is not None), None)


def _counters(line: str, mounted: Path) -> list[Path]:
    """Where a line of ``/proc/self/cgroup`` says that the count is; within a container the path may not be mounted."""
    number, controllers, path = line.split(":", 2)
    if "memory" in controllers.split(","):
        name, root = "memory.oom_control", mounted / "memory"
    elif number == "0":
        name, root = "memory.events", mounted
    else:
        return []
    return [root / path.lstrip("/") / name, root / name]


def _count(path: Path) -> int | None:
    try:
        words = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return None
    return next((int(word[1]) for word in words if word[0] == "oom_kill"), None)


# ---- parts of the message ------------------------------------------------------------------------------------------


def _planned(memory: Memory | None) -> str:
    """The biggest parts of what the plan has."""
    if memory is None or memory.total.mid is None:
        return ""
    found = sorted(_sizes(memory).items(), key=lambda item: -item[1])[:MOST_PARTS]
    ends = f" ({_gib(memory.total.lo)} – {_gib(memory.total.hi)})"
    of = "" if memory.capacity_bytes is None else f" of {_gib(memory.capacity_bytes)}"
    listed = ", ".join(f"{name} {_gib(size)}" for name, size in found)
    return f"the plan has {_gib(memory.total.mid)} GiB{ends}{of} for it, most of it {listed}"


def _sizes(memory: Memory | None) -> dict[str, float]:
    parts = memory.parts if memory is not None else {}
    return {name: part.mid for name, part in parts.items() if part.mid}


def _gib(num_bytes: float | None) -> str:
    """As the plan shows it.

    >>> _gib(3 * 2**30), _gib(2**28), _gib(None)
    ('3.0', '0.25', '?')
    """
    if num_bytes is None:
        return "?"
    size = num_bytes / GIB
    return f"{size:,.1f}" if size >= 1 else f"{size:.2f}"


def _lowered(stage: PlanStage, memory: Memory | None) -> str:
    """The settings that take less, first those of the biggest parts; one that trains otherwise only after all others."""
    sizes = _sizes(memory)
    options = list(_options(stage))
    options.sort(key=lambda it: (it.alters, -sum(sizes.get(part, 0.0) for part in it.parts)))
    if not options:
        return ""
    shown = [
        f"`{it.setting}` ({', '.join(_named(it, sizes))}{'; trains otherwise' if it.alters else ''})"
        for it in options[:MOST_SETTINGS]
    ]
    return f"less take {', '.join(shown)}"


def _named(option: Lower, sizes: dict[str, float]) -> list[str]:
    """The parts that an option lowers, those that the plan has where it has any."""
    return [part for part in option.parts if part in sizes] or list(option.parts)


def _goes_on(stage: PlanStage, checkpoints: Path) -> str:
    if not isinstance(stage.spec, Sft | Rl):
        return ""
    found = sorted(path.parent.name for path in checkpoints.glob("step-*/training.json"))
    if not found:
        return "no checkpoint was written yet, so a re-run trains from the start"
    return f"a re-run goes on from the last checkpoint, after step {int(found[-1][5:]):,}"


def _options(stage: PlanStage) -> Iterator[Lower]:
    spec = stage.spec
    if isinstance(spec, Sft | Rl):
        yield from _of_a_pass(spec)
        yield from _of_the_states(spec)
    engine = getattr(spec, "engine", None)
    if isinstance(engine, Transformers) and engine.batch > 1:
        yield Lower(f"engine = transformers(batch = {engine.batch // 2:_})", ("engine",))
    elif isinstance(engine, Vllm) and engine.gpu_memory > 0.2:
        share = max(0.2, round(engine.gpu_memory - 0.2, 2))
        yield Lower(f"engine = vllm(gpu_memory = {share:g})", ("engine",))
    elif isinstance(spec, Rl) and engine is None:
        yield Lower("engine = vllm(gpu_memory = 0.3)", ("engine",))
    if isinstance(spec, Rl) and spec.behind:
        stay = spec.sharding is not None and spec.sharding.cuts_weights
        freed = ("engine",) if stay else ("engine", "engine weights")
        yield Lower("behind = 0", freed, alters=True)
    if isinstance(spec, Rl) and spec.algorithm.kl and spec.adapter is None:
        yield Lower("algorithm.kl = 0", ("reference",), alters=True)


def _of_a_pass(spec: Sft | Rl) -> Iterator[Lower]:
    """Fewer tokens of a pass, or less kept of each. A pass is never shorter than the longest row."""
    if not spec.recompute:
        yield Lower("recompute = true", ("checkpoints", "vision"))
    if isinstance(spec, Sft) and not spec.loss.fused:
        yield Lower("loss = cross_entropy(fused = true)", ("logits",))
    if isinstance(spec, Sft):
        yield Lower(f"micro_batch = {max(1, (spec.micro_batch or spec.pack) // 2):_}", PASS)
        yield Lower(f"pack = {max(8, spec.pack // 2):_}", PASS, alters=True)
        return
    longest, now = spec.max_prompt + spec.max_response, spec.micro_batch or RL_PASS
    if now > longest:
        yield Lower(f"micro_batch = {max(longest, now // 2):_}", PASS)
    yield Lower(f"max_response = {max(1, spec.max_response // 2):_}", PASS, alters=True)


def _of_the_states(spec: Sft | Rl) -> Iterator[Lower]:
    """What every process holds, split among them or held by fewer."""
    count = num_devices(spec)
    if isinstance(spec.sharding, Fsdp):
        yield from _of_fsdp(spec.sharding, spec)
    elif count > 1:
        at = spec.sharding.stage if spec.sharding else 0
        if at < 2:
            yield Lower("sharding = zero(2)", STATES[1:])
        if at < 3 and not _draws_with_its_own(spec):
            yield Lower("sharding = zero(3)", STATES)
    if spec.adapter is None:
        freed = (*STATES[1:], "reference")
        yield Lower("adapter = lora(rank = 16, alpha = 32)", freed, alters=True)
    if spec.hardware is None and count > 1:
        yield Lower(f"processes = {count // 2}", STATES)


def _draws_with_its_own(spec: Sft | Rl) -> bool:
    """Whether rollouts come from the weights that are trained, of which each process needs a copy once they are cut up."""
    return isinstance(spec, Rl) and isinstance(spec.engine, Transformers)


def _of_fsdp(sharding: Fsdp, spec: Sft | Rl) -> Iterator[Lower]:
    """What of it still stands whole, and what a host beside the device could hold."""
    if not sharding.reshard_after_forward:
        yield Lower("sharding.reshard_after_forward = true", ("gathered",))
    if not sharding.offload and spec.hardware is not None and spec.hardware.gpu is not None:
        yield Lower("sharding.offload = true", STATES)
