"""A text and a model to its number of tokens: tokenizers are loaded once, weights never."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from omr_runtime.work import Work
from omrlang.types import Model, ModelRef

CACHE_TEXTS = 10_000


class TokenCounter:
    """Counts under the tokenizers of the models that a stage names."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._tokenizers: dict[str, Any] = {}
        self._known = lru_cache(CACHE_TEXTS)(self._count)

    def __call__(self, text: str, model: ModelRef) -> int:
        """Tokens of the text itself: no special token is added."""
        name = model.name if isinstance(model, Model) else model.stage
        if name not in self._tokenizers:
            self._tokenizers[name] = self._load(model)
        return self._known(text, name)

    def _count(self, text: str, name: str) -> int:
        return len(self._tokenizers[name](text, add_special_tokens=False, verbose=False).input_ids)

    def _load(self, model: ModelRef) -> Any:
        from omr_runtime.models import load_tokenizer, tokenizer_folder

        work = self._work
        if isinstance(model, Model):
            folder = tokenizer_folder(model, Path(work.state), Path(work.base))
        else:
            folder = Path(work.model_folders[model.stage])
        return load_tokenizer(folder).tokenizer
