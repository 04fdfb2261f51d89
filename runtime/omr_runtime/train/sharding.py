"""The setting ``sharding`` of a training stage -> what the library that cuts up its model is set to, as plain data.

Imports nothing heavy: it is what is shown, too.
"""

from __future__ import annotations

from typing import Any

from omrlang.schema.sft import Training
from omrlang.types import Fsdp, Zero

PASS = {"bf16": "bfloat16", "fp32": "float32"}
"""A precision by its name in torch."""


def deepspeed_config(spec: Training) -> dict[str, Any]:
    """DeepSpeed's settings: ZeRO's stage and the precision. Micro-batches and the step's end are set by the loop."""
    assert isinstance(spec.sharding, Zero)
    return {
        "zero_optimization": {
            "stage": spec.sharding.stage,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "bf16": {"enabled": spec.precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": spec.max_grad_norm,
        "zero_allow_untested_optimizer": True,
    }


def fsdp_config(spec: Training) -> dict[str, Any]:
    """What ``fully_shard`` is given for each layer, by its own names.

    No input is cast: what a model hands its layers in fp32, such as angles, is meant so. A loss is already a part of the
    whole step's mean, so the gradient is a sum over ranks.
    """
    settings = spec.sharding
    assert isinstance(settings, Fsdp)
    on_gpu = spec.hardware is None or spec.hardware.gpu is not None
    return {
        "reshard_after_forward": settings.reshard_after_forward,
        "mp_policy": {
            "param_dtype": PASS[spec.precision],
            "reduce_dtype": "float32",
            "cast_forward_inputs": False,
        },
        "offload_policy": "CPUOffloadPolicy" if settings.offload and on_gpu else "OffloadPolicy",
        "gradient_divide_factor": 1.0,
    }


def configuration(spec: Training) -> tuple[str, dict[str, Any]]:
    """The library that cuts up a stage's model, and what it is set to."""
    match spec.sharding:
        case Zero():
            return "DeepSpeed", deepspeed_config(spec)
        case Fsdp():
            return "PyTorch FSDP2", fsdp_config(spec)
        case None:
            return "plain data parallel", {}
