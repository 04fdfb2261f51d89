"""A model and where it is to be served -> the engine that generates with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from omr_runtime.engines.protocol import Engine
from omr_runtime.errors import RunError
from omrlang.types import Engine as EngineSettings
from omrlang.types import Model, OpenAI, Scripted, Transformers, Vllm

if TYPE_CHECKING:
    from omr_runtime.models import Loaded

PROMPT_TOKENS = 4096
"""What is left for a prompt where nobody says how long one may be."""


def open_engine(
    model: Model | Path,
    settings: EngineSettings | None = None,
    *,
    state: Path,
    base: Path | None = None,
    max_tokens: int = 1024,
    precision: str | None = None,
) -> Engine:
    """The engine for a declared model or the folder of a trained one.

    ``settings`` goes before the model's own engine; with neither it is vLLM where that is installed and can serve the
    model, else transformers. ``max_tokens`` is the longest response that will be asked for.
    """
    if isinstance(model, Model) and isinstance(model.source, Scripted):
        from omr_runtime.engines.scripted import ScriptedEngine

        return ScriptedEngine(model.source)
    chosen = settings or (model.engine if isinstance(model, Model) else None)
    if isinstance(chosen, OpenAI):
        if not isinstance(model, Model):
            raise RunError("engine = openai(…) cannot serve a model that this recipe trains")
        from omr_runtime.engines.openai import OpenAIEngine

        return OpenAIEngine.of(model, chosen)
    folder, own = _folder(model, state, base)
    return _in_process(folder, chosen, precision or own, max_tokens)


def _folder(model: Model | Path, state: Path, base: Path | None) -> tuple[Path, str]:
    from omr_runtime.models import materialise, saved_precision

    if isinstance(model, Model):
        return materialise(model, state, base), model.precision
    return model, saved_precision(model)


def _in_process(
    folder: Path, chosen: Vllm | Transformers | None, precision: str, max_tokens: int
) -> Engine:
    from omr_runtime.engines import vllm
    from omr_runtime.models import load_tokenizer

    match chosen:
        case Transformers():
            return _transformers(folder, precision, chosen)
        case Vllm():
            parts = load_tokenizer(folder)
            if reason := vllm.refusal(parts):
                raise RunError(f"{folder.name}: engine = vllm(…) cannot serve it: {reason}")
            return _vllm(parts, precision, max_tokens, chosen)
        case None:
            parts = load_tokenizer(folder)
            if vllm.refusal(parts) is None:
                return _vllm(parts, precision, max_tokens, None)
            return _transformers(folder, precision, Transformers())
        case _:
            assert_never(chosen)


def _transformers(folder: Path, precision: str, settings: Transformers) -> Engine:
    import torch

    from omr_runtime.engines.transformers import TransformersEngine
    from omr_runtime.models import load

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return TransformersEngine(load(folder, precision, device), settings.batch)


def _vllm(parts: Loaded, precision: str, max_tokens: int, settings: Vllm | None) -> Engine:
    from omr_runtime.engines.vllm import VllmEngine, VllmLimits
    from omr_runtime.models import read_config

    config = read_config(parts.folder)
    longest = (config.get("text_config") or config).get("max_position_embeddings", 8192)
    return VllmEngine(
        parts, precision, VllmLimits(min(longest, PROMPT_TOKENS + max_tokens)), settings
    )
