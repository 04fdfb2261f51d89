"""The training process: packed micro-batches in, optimiser steps out, on one process, several, or cut up among several.

Alone knows Accelerate and DeepSpeed. Gradients are sums over micro-batches and ranks of losses that are already divided
by the whole step's counts; so one process and several compute the same step.
"""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from accelerate import Accelerator, DeepSpeedPlugin, InitProcessGroupKwargs
from accelerate.utils import set_seed
from torch import Tensor
from transformers import PreTrainedModel

from omr_runtime.errors import RunError
from omr_runtime.models.families import Layout
from omr_runtime.train import adapters, fsdp
from omr_runtime.train.batching import (
    DUMMY,
    PackedBatch,
    Sample,
    micro_batches,
    pack_or_dummy,
)
from omr_runtime.train.logprobs import Scorer
from omr_runtime.train.optimizer import MasterAdamW, check_installed
from omr_runtime.train.sharding import deepspeed_config
from omr_runtime.train.utilisation import cost_of, speed
from omr_runtime.train.whole import Whole, gathered_by_zero
from omr_runtime.work import Work
from omrlang.schema import Rl
from omrlang.schema.sft import Training
from omrlang.types import Fsdp, TrainedModel, Zero

LossOf: TypeAlias = Callable[[PackedBatch, Tensor, Tensor], Tensor]
"""``(batch, logp_N, entropy_N)`` to this micro-batch's part of the step's loss."""

MAX_NAMED_ROWS = 5

PATIENCE = timedelta(days=1)
"""How long ranks wait for one that draws, asks a judge or fetches a model. Who starts them ends all when one ends, so nobody
waits for the dead; torch itself would give up after 10 minutes on GPUs."""


def open_accelerator(spec: Training) -> Accelerator:
    """Join the other processes. To be called before a model or an inference engine is made: an engine in this process
    would otherwise set up torch.distributed for itself. RunError where what the optimiser needs is not installed."""
    check_installed(spec.name, spec.optimizer)
    on_gpu = torch.cuda.is_available() and (spec.hardware is None or spec.hardware.gpu is not None)
    if on_gpu:
        _check_gpus(spec.name, int(os.environ.get("LOCAL_RANK", "0")))
    alone = "WORLD_SIZE" not in os.environ
    backend = "nccl" if on_gpu else "gloo"
    handlers = [] if alone else [InitProcessGroupKwargs(backend=backend, timeout=PATIENCE)]
    if isinstance(spec.sharding, Zero):
        # Without the gloo handler each process believes that it is alone, and never with cpu=True.
        plugin = DeepSpeedPlugin(hf_ds_config=deepspeed_config(spec))
        accelerator = Accelerator(deepspeed_plugin=plugin, kwargs_handlers=handlers)
    else:
        accelerator = Accelerator(cpu=not on_gpu, kwargs_handlers=handlers)
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    assert accelerator.num_processes == expected, (
        "processes were started that did not find each other"
    )
    set_seed(spec.seed % 2**32)
    return accelerator


def _check_gpus(name: str, local_rank: int) -> None:
    """RunError on a rank for which the machine has no GPU."""
    there = torch.cuda.device_count()
    if local_rank >= there:
        raise RunError(
            f"{name}: more processes train on this machine than it has GPUs, {there}; "
            "set `processes`, or the devices of its hardware, to what is there"
        )


def starting_folder(work: Work, spec: Training, accelerator: Accelerator) -> Path:
    """The folder of the model that training starts from; made by the main process where it does not exist yet."""
    if isinstance(spec.model, TrainedModel):
        return Path(work.model_folders[spec.model.stage])
    from omr_runtime.models import materialise

    with accelerator.main_process_first():
        return Path(
            work.model_folders.get(spec.model.name)
            or materialise(spec.model, Path(work.state), Path(work.base))
        )


def where_to_load(accelerator: Accelerator, spec: Training) -> str:
    """The device that a model is loaded to before training. FSDP cuts it up on the host and moves the parts, so that no device
    need hold it whole."""
    return "cpu" if isinstance(spec.sharding, Fsdp) else str(accelerator.device)


class Trainer:
    """One process of a training run. ``model`` is the transformers model, ``layout`` what its positions depend on."""

    def __init__(
        self, accelerator: Accelerator, model: PreTrainedModel, spec: Training, fused: bool = True
    ) -> None:
        self.accelerator = accelerator
        self.spec = spec
        self.model = model
        self.layout = Layout.of(model.config)
        self.rank = accelerator.process_index
        self.num_ranks = accelerator.num_processes
        self.is_main = accelerator.is_main_process
        self.device = accelerator.device
        self.version = 0
        """Grows whenever the weights change."""
        model.train()
        adapters.choose_trained(model, spec)
        self.cost = cost_of(model, spec)
        if spec.recompute:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.scorer = Scorer(model, fused, isinstance(spec, Rl) and spec.algorithm.entropy > 0)
        self.engine: Any = None
        self.optimizer: MasterAdamW | None = None
        if isinstance(spec.sharding, Zero):
            self.engine = self._deepspeed()
        elif spec.sharding is not None:
            fsdp.cut_up(self.scorer, spec, self.device, self.num_ranks)
            self.optimizer = fsdp.PartAdamW(self.scorer, spec.optimizer, self.device)
        else:
            self.scorer.to(self.device)
            self.optimizer = MasterAdamW(model.parameters(), spec.optimizer)

    def _deepspeed(self) -> Any:
        settings = self.spec.optimizer
        adam = torch.optim.AdamW(
            [param for param in self.model.parameters() if param.requires_grad],
            lr=0.0,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
        return self.accelerator.prepare(self.scorer, adam)[0]

    # ---- batches -----------------------------------------------------------------------------------------------

    def assign(self, lengths: Sequence[int], budget: int) -> list[list[int]]:
        """This rank's micro-batches of a step, as indices of ``lengths``; as many as every other rank has."""
        costs = [self.cost.of_text(length) for length in lengths]
        return micro_batches(lengths, costs, budget, self.num_ranks)[self.rank]

    def pack(self, samples: Sequence[Sample]) -> PackedBatch:
        """One micro-batch on this process's device; a dummy without samples."""
        return pack_or_dummy(samples, self.layout, self.spec.sharding is not None).to(self.device)

    def score(self, batch: PackedBatch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """``(logp_N, entropy_N)`` under the present weights, without gradient."""
        with torch.no_grad():
            logp_N, entropy_N = (self.engine or self.scorer)(batch, temperature)
        return logp_N, entropy_N

    # ---- steps -------------------------------------------------------------------------------------------------

    def step(
        self, batches: Sequence[PackedBatch], loss_of: LossOf, lr: float, temperature: float = 1.0
    ) -> tuple[float, float]:
        """One optimiser step over this rank's micro-batches; the step's loss and gradient norm, over all ranks.

        RunError, naming rows, if the loss or the gradient is not finite; the run is over then.
        """
        adapters.dropouts(self.model, True)
        scored = [self._backward(b, loss_of, temperature, b is batches[-1]) for b in batches]
        adapters.dropouts(self.model, False)
        (loss,) = self.total([sum(float(loss) for loss, _ in scored)])
        if not math.isfinite(loss):
            self._stop("loss", self._culprits(batches, [logp for _, logp in scored]))
        norm = self._sharded_step(lr) if self.engine is not None else self._plain_step(lr, batches)
        if not math.isfinite(norm):
            self._stop("gradient", [id for batch in batches for id in batch.ids])
        self.version += 1
        return loss, norm

    def _backward(
        self, batch: PackedBatch, loss_of: LossOf, temperature: float, is_last: bool
    ) -> tuple[Tensor, Tensor]:
        if self.engine is not None:
            self.engine.set_gradient_accumulation_boundary(is_last)
        logp_N, entropy_N = (self.engine or self.scorer)(batch, temperature)
        loss = loss_of(batch, logp_N, entropy_N)
        if self.engine is not None:
            # DeepSpeed averages over ranks; the loss is already a part of the whole step's mean.
            self.engine.backward(loss * self.num_ranks)
        elif loss.requires_grad:  # not where text meets nothing but a tower that is trained
            torch.autograd.backward(loss)
        return loss.detach(), logp_N.detach()

    def _plain_step(self, lr: float, batches: Sequence[PackedBatch]) -> float:
        assert self.optimizer is not None
        if self.num_ranks > 1:
            self.optimizer.reduce()
        norm = self.optimizer.clip(self.spec.max_grad_norm)
        if not math.isfinite(norm):
            self._stop("gradient", [id for batch in batches for id in batch.ids])
        self.optimizer.step(lr)
        return norm

    def _sharded_step(self, lr: float) -> float:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        return float(norm) if norm is not None else 0.0

    def _culprits(self, batches: Sequence[PackedBatch], logps: Sequence[Tensor]) -> list[str]:
        """Rows whose log-probabilities are not finite, else all rows of the step."""
        named = []
        for batch, logp_N in zip(batches, logps, strict=True):
            bad_S = torch.unique(batch.segment[~torch.isfinite(logp_N)]).tolist()
            named += [batch.ids[s] for s in bad_S]
        return named

    def _stop(self, what: str, mine: list[str]) -> None:
        rows = [id for rank in self.gather(mine) for id in rank if id != DUMMY]
        shown = ", ".join(rows[:MAX_NAMED_ROWS]) + (" …" if len(rows) > MAX_NAMED_ROWS else "")
        among = f"row {shown}" if len(rows) == 1 else f"rows {shown}"
        raise RunError(f"{self.spec.name}: the {what} is not finite; {among} in the step")

    # ---- between processes -------------------------------------------------------------------------------------

    def speed(self, flops: float, seconds: float) -> dict[str, float]:
        """Of passes of all ranks together that took ``seconds``: their figures ``tflops`` and ``mfu``."""
        on_gpu = self.device.type == "cuda"
        return speed(self.spec, flops, seconds, self.num_ranks, on_gpu)

    def total(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all ranks."""
        if self.num_ranks == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return [float(x) for x in summed.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value (anything that pickles), in rank order."""
        if self.num_ranks == 1:
            return [value]
        out: list[Any] = [None] * self.num_ranks
        dist.all_gather_object(out, value)
        return out

    def wait(self) -> None:
        """Until every rank is here."""
        self.accelerator.wait_for_everyone()

    def leave(self) -> None:
        """The last thing that every rank does: a process that ends while its group's threads are up may abort."""
        if self.num_ranks > 1 or isinstance(self.spec.sharding, Fsdp):
            self.wait()
            dist.destroy_process_group()

    # ---- weights and state -------------------------------------------------------------------------------------

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """All weights under the names of the transformers model, whole, adapters merged in. Every rank must call it and run
        it to its end: of a model that is cut up each is gathered when its turn comes."""
        yield from adapters.merged(self._whole(), self.spec.adapter)

    def _whole(self) -> Mapping[str, Tensor]:
        """All weights as they are trained."""
        sharding = self.spec.sharding
        if sharding is None or not sharding.cuts_weights:
            own: dict[str, Tensor] = self.model.state_dict()
            return own
        if isinstance(sharding, Fsdp):
            fsdp.let_go(self.scorer)
            return Whole(self.model, fsdp.gathering(self.spec.precision, self.device))
        self.engine.optimizer.checkpoint_event_prologue()  # what a pass gathered is let go
        return Whole(self.model, gathered_by_zero)

    def save_model(self, folder: Path) -> None:
        """Write the model in Hugging Face format, from the main process; every rank must call it. Of adapters the model has
        what they come to, and they lie beside it."""
        whole = self._whole()
        if isinstance(whole, Whole):
            whole = whole.on_host(keep=self.is_main)
        if self.is_main:
            weights = dict(adapters.merged(whole, self.spec.adapter))
            self.model.save_pretrained(folder, state_dict=weights)
            if self.spec.adapter is not None:
                adapters.save_adapter(whole, self.model, self.spec, folder / adapters.FOLDER)
        self.wait()

    @contextmanager
    def at_the_start(self) -> Iterator[Scorer]:
        """What scores as the model did before its first step, without a copy of it: its adapters rest."""
        assert self.spec.adapter is not None, "weights that are trained do not come back"
        with adapters.without_adapter(self.model):
            yield self.engine or self.scorer

    def save_state(self, folder: Path) -> None:
        """What is trained, optimiser and random state into an existing folder; every rank must call it."""
        torch.save(_random_state(), folder / f"random-{self.rank}.pt")
        if self.engine is not None:
            self.engine.save_checkpoint(str(folder), tag="sharded", exclude_frozen_parameters=True)
        elif self.is_main or self.spec.sharding is not None:
            assert self.optimizer is not None
            state = {"optimizer": self.optimizer.state_dict(), "buffers": self._buffers()}
            torch.save(state, folder / self._state_file())
        self.wait()

    def load_state(self, folder: Path) -> None:
        """What ``save_state`` wrote, by as many processes under the same sharding."""
        if self.engine is not None:
            self.engine.load_checkpoint(str(folder), tag="sharded", load_module_strict=False)
        else:
            assert self.optimizer is not None
            # The type alone: with gloo the device is called cpu:0, which torch cannot load to.
            on_device = self.device.type == "cuda" and self.spec.sharding is None
            where = self.device if on_device else "cpu"
            state = torch.load(folder / self._state_file(), map_location=where, weights_only=True)
            self.optimizer.load_state_dict(state["optimizer"])
            self.model.load_state_dict(state["buffers"], strict=False)
            del state
            gc.collect()
        self.version += 1
        random = folder / f"random-{self.rank}.pt"
        if random.exists():
            _set_random_state(torch.load(random, weights_only=True))
        self.wait()

    def _buffers(self) -> dict[str, Tensor]:
        """What no optimiser step changes but a forward pass might: buffers that a model saves. Parameters that are frozen are
        those of the model that training starts from."""
        params = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        return {k: v for k, v in self.model.state_dict().items() if k not in params}

    def _state_file(self) -> str:
        """The main process's, which all read; under FSDP each rank's own."""
        return "state.pt" if self.spec.sharding is None else f"state-{self.rank}.pt"

    def state_format(self) -> str:
        """Which processes can read a checkpoint of this run. FSDP cuts the same parts whatever else it is set to."""
        sharding = self.spec.sharding
        if sharding is None:
            return "plain"
        name = "fsdp" if isinstance(sharding, Fsdp) else f"zero({sharding.stage})"
        return f"{name} on {self.num_ranks} processes"


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
