"""AdamW whose weights, moments and gradient sums are fp32 while the model computes in bf16; or the moments 8 bits each.

At a rate of 1e-6 an Adam step is smaller than the spacing of most bf16 weights, so an optimiser that steps bf16 weights
does not learn. The fp32 copy takes every step; the model gets it rounded.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ReduceOp, all_reduce

from omr_runtime.errors import RunError
from omrlang.types import AdamW

BUCKET = 1 << 25
"""Numbers sent in one exchange between ranks."""


class MasterAdamW:
    """Steps fp32 masters of ``params``. Each gradient is added up in fp32 as soon as a backward pass has it, and given back
    there: those of the whole model never stand in bf16 beside their sums."""

    def __init__(self, params: Iterable[nn.Parameter], settings: AdamW) -> None:
        self.params = [p for p in params if p.requires_grad]
        self.masters = [p if p.dtype == torch.float32 else p.detach().float() for p in self.params]
        self.adam = adam_of(self.masters, settings)
        for param, master in zip(self.params, self.masters, strict=True):
            if master is not param:
                param.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    partial(_collect, master)
                )

    def reduce(self) -> None:
        """Sum gradients over ranks. A parameter that this rank did not use counts as zero."""
        for bucket in _buckets(self.masters):
            grads = [m.grad if m.grad is not None else torch.zeros_like(m) for m in bucket]
            flat = torch.cat([grad.reshape(-1) for grad in grads])
            all_reduce(flat, ReduceOp.SUM)
            for master, part in zip(
                bucket, torch.split(flat, [m.numel() for m in bucket]), strict=True
            ):
                master.grad = part.view_as(master)

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to ``max_norm`` if it is longer; its norm before."""
        grads = [m.grad for m in self.masters if m.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        torch.nn.utils.clip_grads_with_norm_(self.masters, max_norm, norm)
        return float(norm)

    def step(self, lr: float) -> None:
        """One AdamW step (decoupled weight decay, arXiv 1711.05101), then the model gets the rounded weights."""
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self.zero_grad()
        self.publish()

    def publish(self) -> None:
        """Round the masters into the model."""
        with torch.no_grad():
            for param, master in zip(self.params, self.masters, strict=True):
                if master is not param:
                    param.copy_(master)

    def zero_grad(self) -> None:
        """Forget all gradients, the model's and the sums."""
        self.adam.zero_grad(set_to_none=True)
        for param in self.params:
            param.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Masters and moments."""
        return {"masters": [m.detach() for m in self.masters], "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take masters and moments, and round the masters into the model."""
        with torch.no_grad():
            for master, saved in zip(self.masters, state["masters"], strict=True):
                master.copy_(saved)
        self.publish()
        self.adam.load_state_dict(state["adam"])


def check_installed(name: str, settings: AdamW) -> None:
    """RunError of the stage ``name`` if its optimiser needs what is not installed."""
    if settings.moments == "blockwise8" and importlib.util.find_spec("bitsandbytes") is None:
        raise RunError(
            f"{name}: `moments = blockwise8` needs the package bitsandbytes; "
            "`pip install 'omrlang[bitsandbytes]'` brings it"
        )


def adam_of(masters: list[Tensor], settings: AdamW) -> torch.optim.Optimizer:
    """With moments in fp32 torch's own, with moments of 8 bits that of bitsandbytes, whose scales are of blocks of 256; there a
    tensor of less than 4,096 numbers keeps fp32."""
    of_both: dict[str, Any] = {
        "lr": 0.0,
        "betas": settings.betas,
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
    }
    if settings.moments == "fp32":
        return torch.optim.AdamW(masters, fused=True, **of_both)
    from bitsandbytes.optim import AdamW8bit

    made: torch.optim.Optimizer = AdamW8bit(masters, **of_both)
    return made


def _collect(master: Tensor, param: Tensor) -> None:
    """Move a parameter's gradient of one micro-batch into its fp32 sum."""
    assert param.grad is not None
    if master.grad is None:
        master.grad = param.grad.float()
    else:
        master.grad.add_(param.grad)
    param.grad = None


def _buckets(tensors: list[Tensor]) -> Iterable[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and size + tensor.numel() > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket
