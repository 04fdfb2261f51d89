"""Weights to a vLLM engine that is spread over several devices, each of which has a worker process of its own.

An iterator cannot go to another process, and all weights at once would stand in memory once more for each worker. So vLLM's own
``reload_weights`` is done here in its three parts, the middle one for a few tensors at a time. Tested with two workers on a CPU; on GPUs it was not run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from omr_runtime.engines.protocol import Weights

AT_ONCE = 128 << 20
"""Bytes that go to the workers in one call, if no tensor is larger."""


def reload_in_workers(llm: Any, weights: Weights) -> None:
    """Replace the weights of every worker by its part of them."""
    llm.collective_rpc(_begin)
    for group in _groups(weights):
        llm.collective_rpc(_load, args=(group,))
    llm.collective_rpc(_end)


def _groups(weights: Weights) -> Iterator[list[tuple[str, Tensor]]]:
    group: list[tuple[str, Tensor]] = []
    size = 0
    for name, tensor in weights:
        if group and size + tensor.nbytes > AT_ONCE:
            yield group
            group, size = [], 0
        group.append((name, tensor.detach().cpu()))
        size += tensor.nbytes
    if group:
        yield group


# ---- in a worker -------------------------------------------------------------------------------------------------


def _begin(worker: Any) -> None:
    from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

    initialize_layerwise_reload(worker.model_runner.get_model())


def _load(worker: Any, named: list[tuple[str, Tensor]]) -> None:
    worker.model_runner.get_model().load_weights(named)


def _end(worker: Any) -> None:
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

    runner = worker.model_runner
    finalize_layerwise_reload(runner.get_model(), runner.model_config)
    runner.reset_encoder_cache()
    runner.reset_mm_cache()
