"""The setting ``sharding`` of a training stage -> what the library that cuts up its model is set to, as plain data.

Imports nothing heavy: it is what is shown, too.
"""

from __future__ import annotations

from typing import Any

from omrlang.schema.sft import Training
from omrlang.types import Zero


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
