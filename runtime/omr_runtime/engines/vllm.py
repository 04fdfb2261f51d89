"""Generation by vLLM inside this process, on a CPU or a GPU, with weights that can be pushed while it stands.

Alone knows what vLLM must be told before it is imported, and how its scheduler is kept full: each sample is a request
of its own, and the samples of one prompt share its keys and values through the prefix cache.
Starting vLLM seeds every generator of the process and initialises torch.distributed, so whoever trains in the same
process makes the Accelerator before and seeds after.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from omr_runtime.chat import tokens_of
from omr_runtime.engines.asking import answer
from omr_runtime.engines.decode import Ask, Draw, OnSampled, Sampled, Until
from omr_runtime.engines.protocol import Done, EngineDied, Request, Weights
from omr_runtime.engines.spread import reload_in_workers
from omr_runtime.errors import RunError
from omr_runtime.models import Loaded
from omrlang.types import VLLM_AT_ONCE, Vllm

KV_CACHE_GIB = "2"
ON_A_CPU = 64
"""Sequences at once on a CPU, unless the recipe says otherwise."""
NEEDED = {"smolvlm": ("num2words",)}
"""Packages that a model's processor wants in transformers, by the model's type."""
SEED_APART = 0x9E3779B97F4A7C15
"""Between the seeds of what a sample's requests draw; odd and large, so that no neighbour's seed is met."""
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""What vLLM's attention for CPUs is compiled for (its ``CPUAttentionBackend.get_supported_head_sizes``)."""


def is_installed() -> bool:
    """Whether vLLM can be had, without importing it."""
    return importlib.util.find_spec("vllm") is not None


def refusal(loaded: Loaded) -> str | None:
    """Why vLLM cannot serve this model on this machine; None if it can."""
    if not is_installed():
        return "vLLM is not installed"
    reason = _missing(loaded) or (None if _has_gpu() else _not_on_a_cpu(loaded))
    return f"{reason}; engine = transformers() serves them" if reason else None


def _missing(loaded: Loaded) -> str | None:
    """What vLLM wants beside itself for models of this kind."""
    if not loaded.is_vision:
        return None
    for package in ("torchvision", *NEEDED.get(loaded.layout.config.model_type, ())):
        if importlib.util.find_spec(package) is None:
            return f"vLLM needs {package} for vision-language models of this kind, and it is not installed"
    return None


def _not_on_a_cpu(loaded: Loaded) -> str | None:
    size = _head_size(loaded)
    if size is not None and size not in CPU_HEAD_SIZES:
        return f"vLLM on a CPU has no attention for heads of size {size}"
    if loaded.is_vision and loaded.layout.family is not None and loaded.layout.family.looks_ahead:
        return (
            "vLLM on a CPU shows models whose image tokens see each other those before alone, "
            "so their answers differ"
        )
    return None


def _head_size(loaded: Loaded) -> int | None:
    from omr_runtime.models import read_config

    config = read_config(loaded.folder)
    config = config.get("text_config") or config
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    return config.get("head_dim") or (hidden // heads if hidden and heads else None)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@dataclass(frozen=True, slots=True)
class VllmLimits:
    """What the engine is sized by: the longest prompt with its response, and how many sequences run at once where the recipe
    does not say."""

    max_length: int
    max_num_seqs: int | None = None

    def at_once(self, settings: Vllm) -> int:
        return (
            settings.max_num_seqs or self.max_num_seqs or (VLLM_AT_ONCE if _has_gpu() else ON_A_CPU)
        )


class VllmEngine:
    """``loaded`` gives the tokenizer and the image processor; its weights, if it has any, are not used."""

    name = "vllm"

    def __init__(
        self, loaded: Loaded, precision: str, limits: VllmLimits, settings: Vllm | None = None
    ) -> None:
        self.loaded, self.limits = loaded, limits
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.version = importlib.metadata.version(_distribution())
        settings = settings or Vllm()
        self.at_once = limits.at_once(settings)
        self.is_guest = dist.is_initialized()
        self.llm = _start(loaded, precision, limits, settings)
        self.is_spread = settings.tensor_parallel > 1
        self.can_rest = _has_gpu()
        self.is_resting = False
        self.num_requests = 0

    def generate(self, requests: Iterable[Request], done: Done) -> None:
        """Generate all samples of all requests; a row that cannot be shown fails its own request only."""
        answer(self.loaded, self.roll, requests, done)

    def roll(
        self, asks: Iterable[Ask], draw: Draw, done: OnSampled, until: Until | None = None
    ) -> None:
        """Draw every sample of every encoded prompt, at least two batches in flight, or until there is enough. EngineDied if
        vLLM gives up."""
        waiting = _samples(checked(self.loaded, asks))
        under_way: dict[str, Sampled] = {}
        core = self.llm.llm_engine
        try:
            while (until is None or not until.enough()) and (
                self._top_up(waiting, under_way, draw, until) or core.has_unfinished_requests()
            ):
                for output in core.step():
                    _add(under_way[output.request_id], output)
                    if output.finished:
                        stopped = output.outputs[0].finish_reason == "stop"
                        done(replace(under_way.pop(output.request_id), stopped=stopped))
        except (RuntimeError, ValueError) as error:
            raise EngineDied(f"vLLM stopped: {_first_line(error)}") from error
        finally:
            core.abort_request(list(under_way))  # whatever ended it before all were drawn
        for sampled in under_way.values():
            if until is not None and sampled.token_ids:
                until.left(sampled)

    def _top_up(
        self,
        waiting: Iterator[tuple[int, int, Ask]],
        under_way: dict[str, Sampled],
        draw: Draw,
        until: Until | None,
    ) -> bool:
        """Add requests until two batches are in flight; whether any were added."""
        before = len(under_way)
        while len(under_way) < 2 * self.at_once:
            entry = next(waiting, None)
            if entry is None:
                break
            ask, sample, what = entry
            name = str(self.num_requests)
            self.num_requests += 1
            under_way[name] = Sampled(ask, sample, [], [], False)
            params = _params(draw, what.seeds[sample], len(what.begun), until is not None)
            self.llm.llm_engine.add_request(name, self._prompt(what), params)
        return len(under_way) > before

    def _prompt(self, ask: Ask) -> Any:
        """Images go with the text that has one placeholder each: vLLM expands them itself. What was begun follows as tokens, to
        which the same is done."""
        if not ask.images:
            return {"prompt_token_ids": ask.read_ids}
        shown: dict[str, Any] = {"prompt": ask.text}
        if ask.begun:
            assert ask.text is not None, "an ask with images has its text"
            shown = {"prompt_token_ids": [*tokens_of(self.loaded, ask.text), *ask.begun]}
        shown["multi_modal_data"] = {"image": list(ask.images)}
        return shown | ({"mm_processor_kwargs": dict(ask.told)} if ask.told else {})

    def update_weights(self, weights: Weights) -> None:
        """Replace all weights and forget every cached key, value and picture's features, which belong to the old ones."""
        named = ((self.loaded.layout.served_name(name), tensor) for name, tensor in weights)
        whole = _with_head(named, self.dtype)
        if self.is_resting:
            torch.cuda.empty_cache()  # what the trainer holds and does not use
            self.llm.wake_up(tags=["weights"])
        if self.is_spread:
            reload_in_workers(self.llm, whole)
        else:
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": whole})
        if self.is_resting:
            self.llm.wake_up(tags=["kv_cache"])
            self.is_resting = False
        # The workers forgot what old weights saw in pictures; the scheduler, which would not have them look again, did not.
        self.llm.llm_engine.reset_encoder_cache()
        if not self.llm.reset_prefix_cache():
            raise EngineDied("vLLM did not drop its prefix cache after new weights")

    def rest(self) -> None:
        """Leave the GPU's memory to who learns, weights too: with new ones it wakes. Only where ``can_rest``."""
        self.llm.sleep(level=2)
        self.is_resting = True

    def close(self) -> None:
        """Let go of the engine. vLLM frees its memory when the process ends."""
        core = self.llm.llm_engine.engine_core
        if self.is_guest:
            if self.can_rest and not self.is_resting:
                self.rest()  # the model is still to be written
            _close_guest(core)
        elif hasattr(core, "shutdown"):
            core.shutdown()


def _close_guest(core: Any) -> None:
    """Close an engine among processes that train: shut down as usual it would end their group with its own, and they could not
    save what they have learned."""
    from vllm.distributed import destroy_model_parallel
    from vllm.distributed.parallel_state import get_world_group

    core._finalizer.detach()
    core.engine_core.model_executor.shutdown()
    destroy_model_parallel()
    get_world_group().destroy()


def _distribution() -> str:
    names = importlib.metadata.packages_distributions().get("vllm", ["vllm"])
    return names[0]


def _start(loaded: Loaded, precision: str, limits: VllmLimits, settings: Vllm) -> Any:
    """The engine of this process. The variables must stand before vLLM is first imported."""
    on_gpu = torch.cuda.is_available()
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if not on_gpu:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", KV_CACHE_GIB)
        # A few of the sampler's functions are compiled at first use: a minute that a small machine does not get back.
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    from vllm import LLM

    options: dict[str, Any] = {
        "model": str(loaded.folder),
        "dtype": "bfloat16" if precision == "bf16" else "float32",
        "max_model_len": limits.max_length,
        "max_num_seqs": limits.at_once(settings),
        "enforce_eager": not on_gpu,
        "tensor_parallel_size": settings.tensor_parallel,
        "logprobs_mode": "processed_logprobs",
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "seed": 0,
    }
    options |= _among_ranks()
    if not on_gpu:
        options |= _cpu_options(limits, settings)
    else:
        options |= {"gpu_memory_utilization": settings.gpu_memory, "enable_sleep_mode": True}
        if settings.max_num_batched_tokens is not None:
            options["max_num_batched_tokens"] = settings.max_num_batched_tokens
    try:
        return LLM(**options)
    except (RuntimeError, ValueError, OSError, ImportError) as error:
        raise EngineDied(
            f"vLLM did not start with {loaded.folder}: {_first_line(error)}"
        ) from error


def _among_ranks() -> dict[str, Any]:
    """A rank's engine stands on the rank's own device: left to itself, vLLM takes the first of the machine on each of them. Ranks
    start their engines together, since all have as much room for keys as the one with the least."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return {}
    return {"distributed_executor_backend": "external_launcher"}


def _cpu_options(limits: VllmLimits, settings: Vllm) -> dict[str, Any]:
    """On a CPU a seeded request whose prompt is read in two chunks ends the engine ("CPU Generator does not use offset"), so
    prompts are read whole. Short blocks let the samples of a prompt, and prompts of one system prompt, share their keys."""
    return {
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(settings.max_num_batched_tokens or 4096, limits.max_length),
        "block_size": 32,
    }


def _with_head(weights: Weights, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights in the engine's type, and the output layer always among them.

    A model file leaves out an output layer that is tied to the embedding; vLLM on a CPU keeps a packed copy of it, which
    without this would stay the old one and say nothing.
    """
    embedding, has_head = None, False
    for name, tensor in weights:
        has_head = has_head or name.endswith("lm_head.weight")
        if name.endswith("embed_tokens.weight"):
            embedding = tensor
        yield name, tensor.to(dtype)
    if not has_head and embedding is not None:
        yield "lm_head.weight", embedding.to(dtype)


def checked(loaded: Loaded, asks: Iterable[Ask]) -> Iterator[Ask]:
    """The prompts. RunError at one that vLLM would show otherwise than the trainer."""
    family = loaded.layout.family
    for ask in asks:
        if family is not None and family.vllm_sees_one and len(ask.images) > 1:
            raise RunError(
                f"vLLM shows {family.name} each of several images as if it were alone; engine = transformers() serves them"
            )
        yield ask


def _samples(asks: Iterable[Ask]) -> Iterator[tuple[int, int, Ask]]:
    for index, ask in enumerate(asks):
        for sample in range(len(ask.seeds)):
            yield index, sample, ask


def _params(draw: Draw, seed: int, begun: int, as_they_come: bool) -> Any:
    """A request has chance of its own from its first token on: one that goes on after ``begun`` tokens gets another seed.
    ``as_they_come`` has the tokens of unfinished requests told too."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    only = StructuredOutputsParams(choice=list(draw.choice_texts)) if draw.choice_texts else None
    return SamplingParams(
        temperature=draw.temperature,
        top_p=draw.top_p,
        top_k=draw.top_k or 0,
        max_tokens=draw.max_tokens - begun,
        seed=(seed + begun * SEED_APART) % (1 << 63) if draw.temperature > 0 else None,
        stop_token_ids=sorted(draw.stops),
        logit_bias=dict.fromkeys(draw.never, -100.0) or None,
        structured_outputs=only,
        logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA if as_they_come else RequestOutputKind.FINAL_ONLY,
    )


def _add(sampled: Sampled, output: Any) -> None:
    """The tokens that are new, or all of them at the end."""
    (one,) = output.outputs
    tokens = list(one.token_ids)
    sampled.token_ids.extend(tokens)
    sampled.logprobs.extend(
        at[token].logprob for token, at in zip(tokens, one.logprobs or (), strict=True)
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def weights_of(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """All weights of a model folder by name, read one file after another."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                yield name, tensors.get_tensor(name)
