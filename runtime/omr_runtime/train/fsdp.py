"""A model on each of several processes -> one that is cut up among them by PyTorch's FSDP2, with an optimiser of each one's part.

Alone knows ``fully_shard``. Layers are units of their own; embeddings, norms, output layer and what else stands between them
belong to the whole, and are gathered while it computes, so that the output layer's weight can be read there without a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from omr_runtime.errors import RunError
from omr_runtime.train.optimizer import MasterAdamW, adam_of
from omr_runtime.train.sharding import PASS, fsdp_config
from omrlang.schema.sft import Training
from omrlang.types import AdamW


def cut_up(whole: nn.Module, spec: Training, device: torch.device, num_ranks: int) -> None:
    """Cut up ``whole`` where it stands, which may be on the host; its parts are moved one after another.

    What is trained becomes fp32, from which the precision of the pass is gathered; what is not stays in that precision.
    Gradients are sums over ranks, of every micro-batch at once: summed up first, they would stand whole in fp32.
    """
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise RunError(
            f"{spec.name}: `sharding = fsdp()` needs a torch newer than {torch.__version__}, whose FSDP2 can only average"
        )
    config = fsdp_config(spec)
    how = _how(config, device, num_ranks)
    for unit in [*_layers(whole), whole]:
        for param in unit.parameters():
            if param.requires_grad and not isinstance(param, DTensor):
                param.data = param.data.float()
        # The whole is needed again as soon as its forward pass ends.
        again = config["reshard_after_forward"] and unit is not whole
        _sums(fully_shard(unit, reshard_after_forward=again, **how), config)
    _settle(whole)


def _how(config: dict[str, Any], device: torch.device, num_ranks: int) -> dict[str, Any]:
    """Without a GPU the host is where everything is."""
    policy = dict(config["mp_policy"])
    for name in ("param_dtype", "reduce_dtype"):
        policy[name] = getattr(torch, policy[name])
    away = config["offload_policy"] == "CPUOffloadPolicy" and device.type != "cpu"
    return {
        "mesh": init_device_mesh(device.type, (num_ranks,)),
        "mp_policy": MixedPrecisionPolicy(**policy),
        "offload_policy": CPUOffloadPolicy() if away else OffloadPolicy(),
    }


def _layers(whole: nn.Module) -> list[nn.Module]:
    """The blocks of text model and vision tower, by which transformers also recomputes."""
    return [module for module in whole.modules() if isinstance(module, GradientCheckpointingLayer)]


def _sums(unit: FSDPModule, config: dict[str, Any]) -> None:
    """Ranks add up. Of what a rank did not use it has zeros, or ranks would send different things."""
    unit.set_gradient_divide_factor(config["gradient_divide_factor"])
    unit.set_force_sum_reduction_for_comms(True)
    if hasattr(unit, "set_reduce_scatter_unused_params"):  # torch before 2.13 leaves them out
        unit.set_reduce_scatter_unused_params(True)


def _settle(whole: nn.Module) -> None:
    """Have every unit gather once: before that it may still put its weights somewhere else."""
    for unit in _units(whole):
        unit.unshard()
        unit.reshard()


def _units(whole: nn.Module) -> Iterator[FSDPModule]:
    return (module for module in whole.modules() if isinstance(module, FSDPModule))


def let_go(whole: nn.Module) -> None:
    """Free what a pass gathered, and what would be old after a step."""
    for unit in _units(whole):
        unit.reshard()


# ---- whole weights ---------------------------------------------------------------------------------------------------


def gathering(precision: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Part of a weight to the whole, in the precision of the pass."""
    dtype: torch.dtype = getattr(torch, PASS[precision])

    def gathered(part: Tensor) -> Tensor:
        own = part.detach()
        if not isinstance(own, DTensor):
            return own
        moved: Any = own.to(dtype).to(device.type)
        whole: Tensor = moved.full_tensor()
        return whole

    return gathered


# ---- the optimiser ---------------------------------------------------------------------------------------------------


class PartAdamW(MasterAdamW):
    """Steps this rank's fp32 part of what is trained, where it lies: there is no second copy."""

    def __init__(self, model: nn.Module, settings: AdamW, device: torch.device) -> None:
        self.model, self.device = model, device
        trained = [p for p in model.parameters() if p.requires_grad]
        self.params = [p for p in trained if _part(p).numel()]
        self.masters = [_part(p) for p in self.params]
        self.adam = adam_of(self.masters, settings)

    def reduce(self) -> None:
        """Nothing: the backward pass has summed."""

    def clip(self, max_norm: float) -> float:
        """Scale the gradient of all ranks down to ``max_norm`` if it is longer; its norm before."""
        for param, master in zip(self.params, self.masters, strict=True):
            master.grad = None if param.grad is None else _part(param.grad)
        grads = [m.grad for m in self.masters if m.grad is not None]
        square = torch.nn.utils.get_total_norm(grads).to(self.device, torch.float64) ** 2
        dist.all_reduce(square)
        norm = square.sqrt()
        torch.nn.utils.clip_grads_with_norm_(self.masters, max_norm, norm.to(self.masters[0]))
        return float(norm)

    def publish(self) -> None:
        """What was gathered from the old weights is let go."""
        let_go(self.model)


def _part(tensor: Tensor) -> Tensor:
    detached: Any = tensor.detach()
    local: Tensor = detached.to_local()
    return local
