"""A dataset or model on the Hugging Face hub becomes the commit that a revision of it is now. The one module that asks
a network, and only ``omr lock`` calls it."""

from __future__ import annotations

import os

from omrlang.diagnostics import InputError
from omrlang.pins import Kind

TIMEOUT_S = 20.0
ENDPOINT = "HF_ENDPOINT"
"""The environment variable that names another hub, such as a mirror inside a company."""


def commit_of(kind: Kind, name: str, revision: str | None) -> str:
    """The commit of a branch, a tag, or of the default branch. Raises ``InputError`` where it cannot be had."""
    try:
        from httpx import HTTPError
        from huggingface_hub import HfApi
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise InputError(
            f"{name} is on a hub, which is asked through huggingface_hub: pip install 'omrlang[hub]'"
        ) from error
    try:
        found = HfApi(endpoint=os.environ.get(ENDPOINT)).repo_info(
            name,
            repo_type="dataset" if kind == "data" else "model",
            revision=revision,
            timeout=TIMEOUT_S,
        )
    except GatedRepoError as error:
        raise InputError(f"{name}: its owner must grant access, and HF_TOKEN be set") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{name}: the hub has no revision `{revision}` of it") from error
    except RepositoryNotFoundError as error:
        told = f"{name}: the hub has no such {'dataset' if kind == 'data' else 'model'}"
        raise InputError(f"{told}, or it is private and HF_TOKEN is not set") from error
    except (HFValidationError, HTTPError, OfflineModeIsEnabled, OSError) as error:
        raise InputError(f"{name}: the hub cannot be asked ({_short(error)})") from error
    if not found.sha:
        raise InputError(f"{name}: the hub does not say which commit it is")
    return str(found.sha)


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
