"""A loaded model to one of which a part is trained: frozen parts by name, LoRA adapters, and what is left when they are merged.

Alone knows peft. Adapters have the model's precision in a pass; as all that is trained they have fp32 masters in the optimiser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import torch
from torch import Tensor, nn

from omr_runtime.errors import RunError
from omrlang.schema.sft import Training
from omrlang.types import HfModel, Lora, Model, Part

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Named: TypeAlias = Iterable[tuple[str, Tensor]]

FOLDER = "adapter"
"""Where in a saved model's folder the adapter itself lies."""

NAME = "default"
"""What peft calls an adapter that nobody named; it stands in the names of its weights."""

PLACES: Mapping[str, Sequence[str]] = {
    "projector": (
        r"(^|\.)visual\.(merger|deepstack_merger_list)\.",
        r"(^|\.)(multi_modal_projector|connector)\.",
        r"(^|\.)image_newline$",
    ),
    "vision": (r"(^|\.)(visual|vision_tower|vision_model)\.",),
    "embeddings": (r"(^|\.)embed_tokens\.",),
    "head": (r"(^|\.)lm_head\.",),
}
"""How the weights of each part are called in transformers, the first that fits; all others are the language model's. Qwen-VL has
its merger inside of the tower; LLaVA and Gemma 3 a `multi_modal_projector`, Idefics 3 and SmolVLM a `connector`."""


# ---- what is trained -------------------------------------------------------------------------------------------------


def part_of(name: str) -> str:
    """The part that a weight belongs to.

    >>> part_of("model.visual.merger.mlp.0.weight"), part_of("model.language_model.layers.0.mlp.up_proj.weight")
    ('projector', 'language')
    """
    for part, patterns in PLACES.items():
        if any(re.search(pattern, name) for pattern in patterns):
            return part
    return "language"


def choose_trained(model: PreTrainedModel, spec: Training) -> None:
    """Freeze what the recipe keeps, and put adapters beside what it adapts. RunError where the model has no such part."""
    if spec.adapter is not None:
        _add_adapter(model, spec, spec.adapter)
    elif spec.freeze:
        _freeze(model, spec)


def _freeze(model: PreTrainedModel, spec: Training) -> None:
    """A matrix that is embedding and output layer at once is kept by either name."""
    found: dict[str, list[nn.Parameter]] = {part: [] for part in get_args(Part)}
    for name, param in model.named_parameters(remove_duplicate=False):
        found[part_of(name)].append(param)
    for part in spec.freeze:
        if not found[part]:
            kind = model.config.model_type
            raise RunError(
                f"{spec.name}: `freeze` names {part}, which the model ({kind}) does not have"
            )
        for param in found[part]:
            param.requires_grad_(False)
    if not any(param.requires_grad for param in model.parameters()):
        raise RunError(f"{spec.name}: `freeze` leaves nothing of the model to train")


def _add_adapter(model: PreTrainedModel, spec: Training, adapter: Lora) -> None:
    """The first values hang on the seed alone, so that they are the same on every rank and device."""
    try:
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise RunError(
            f"{spec.name}: `adapter` needs the package peft; `pip install 'omrlang[train]'` brings it"
        ) from error

    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed % 2**32)
        try:
            inject_adapter_in_model(_config(model, spec, adapter), model)
        except ValueError as error:
            raise RunError(f"{spec.name}: no adapter for this model: {error}") from error
    dropouts(model, False)


def _config(model: PreTrainedModel, spec: Training, adapter: Lora) -> Any:
    """peft's settings: the matrices by their full names, so that a tower that calls its own the same has none."""
    from peft import LoraConfig

    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and part_of(f"{name}.") == "language"
        and name.rpartition(".")[2] in adapter.targets
    ]
    lacks = set(adapter.targets) - {name.rpartition(".")[2] for name in targets}
    if lacks:
        kind = model.config.model_type
        raise RunError(
            f"{spec.name}: `adapter` goes to {', '.join(sorted(lacks))}, which the layers of the model ({kind}) do not have; "
            "its `targets` say which it has"
        )
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=adapter.dropout,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )


# ---- passes ----------------------------------------------------------------------------------------------------------


def dropouts(model: nn.Module, on: bool) -> None:
    """Whether adapters leave out a part of what they are given: in an update, never where a policy writes or is scored."""
    for module in _layers(model):
        module.lora_dropout.train(on)


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """The model that training started from. peft's own switch would also take the gradients from the adapters, which wait
    for a backward pass here."""
    layers = list(_layers(model))
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def _layers(model: nn.Module) -> Iterator[Any]:
    """What peft put in the place of the matrices that have adapters."""
    return (module for module in model.modules() if hasattr(module, "lora_dropout"))


# ---- weights ---------------------------------------------------------------------------------------------------------

A, B, BASE = f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight", ".base_layer."


def merged(weights: Mapping[str, Tensor], adapter: Lora | None) -> Iterator[tuple[str, Tensor]]:
    """Weights under the names of the model as it was loaded, with W + alpha / rank * B A (arXiv 2106.09685, equation 3) where
    there is an adapter, summed in fp32 and rounded once; one sum stands in memory at a time."""
    for name, tensor in weights.items():
        if name.endswith((A, B)):
            continue
        inner = name.partition(BASE)[0]
        if adapter is not None and f"{inner}{A}" in weights and name.endswith(".weight"):
            tensor = _summed(tensor, weights[f"{inner}{A}"], weights[f"{inner}{B}"], adapter)
        yield name.replace(BASE, "."), tensor


def _summed(base_OI: Tensor, a_RI: Tensor, b_OR: Tensor, adapter: Lora) -> Tensor:
    product_OI = b_OR.detach().float() @ a_RI.detach().float()
    whole = base_OI.detach().float() + adapter.alpha / adapter.rank * product_OI
    return whole.to(base_OI.dtype)


def own_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapter's, under the names by which peft loads them."""
    return {
        f"base_model.model.{name.replace(f'.{NAME}.', '.')}": tensor.detach().contiguous()
        for name, tensor in weights.items()
        if name.endswith((A, B))
    }


def save_adapter(
    weights: Mapping[str, Tensor], model: PreTrainedModel, spec: Training, folder: Path
) -> None:
    """Write the adapter as peft loads it on the model that training started from: a hub's by its name, else the folder."""
    from safetensors.torch import save_file

    assert spec.adapter is not None, "asked for where there is one"
    own = own_weights(weights)
    config = _config_to_save(model, spec)
    folder.mkdir()
    save_file({k: v.cpu() for k, v in own.items()}, str(folder / "adapter_model.safetensors"))
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))


def _config_to_save(model: PreTrainedModel, spec: Training) -> dict[str, Any]:
    """As peft writes it: its lists are sets."""
    config = model.peft_config[NAME].to_dict()
    source = spec.model.source if isinstance(spec.model, Model) else None
    config["base_model_name_or_path"] = (
        source.id if isinstance(source, HfModel) else model.name_or_path
    )
    config["revision"] = source.revision if isinstance(source, HfModel) else None
    config["inference_mode"] = True
    return {
        key: sorted(value) if isinstance(value, set) else value for key, value in config.items()
    }
