"""Adapters and frozen parts in training: what moves, what is saved, what the gradients are, what the reference is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from test_rl import made as rl_made
from test_rl import metric, rl_spec, table
from test_rl import weights as rl_weights
from torch.nn.functional import cross_entropy
from training_parts import drawn_rows, fresh_folder, killed_after_saving, sft_spec, sft_work

from omr_runtime.engines.slots import slot_attending
from omr_runtime.errors import RunError
from omr_runtime.models import load
from omr_runtime.stages.sft import run
from omr_runtime.train import adapters, policy, rl
from omr_runtime.train.logprobs import Scorer
from omr_runtime.train.loop import Trainer, open_accelerator
from omr_runtime.train.sft import _rows, copy_companions
from omr_runtime.work import Work
from omrlang.estimate.shapes import adapter_params, part_params, shape_of
from omrlang.schema.sft import Training
from omrlang.types import Amount, Checkpoint, Fresh, Grpo, Lora, Model, Part
from omrlang.types.training import Matrix

LORA = Lora(rank=4, alpha=8)
TWO: tuple[Matrix, ...] = ("q_proj", "v_proj")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh_folder(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh_folder(tmp_path_factory.mktemp("models") / "text", "qwen2")


def work_of(state: Path, base: Path, **changes: Any) -> Work:
    with_images = changes.pop("with_images", True)
    rows = drawn_rows(state, 20, with_images=with_images)
    return sft_work(state, base, rows, sft_spec(**changes))


def folder_of(work: Work) -> Path:
    return Path(work.state) / "models" / work.stage.fingerprint


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model: Any = load(folder).model
    return dict(model.state_dict())


def moved(before: Path, after: Path) -> set[str]:
    old, new = weights(before), weights(after)
    assert old.keys() == new.keys()
    return {name for name in old if not torch.equal(old[name], new[name])}


def opened(folder: Path, spec: Training) -> Trainer:
    model = load(folder, spec.precision).model
    assert model is not None
    return Trainer(open_accelerator(spec), model, spec)


def randomised(model: torch.nn.Module) -> None:
    """B is zero at first: an adapter that says something."""
    for name, param in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(param, std=0.1)


# ---- what moves, and what is saved -------------------------------------------------------------------------------------


def test_only_what_has_adapters_moves_and_both_forms_say_the_same(
    tmp_path: Path, base: Path
) -> None:
    work = work_of(tmp_path, base, adapter=LORA, lr={"kind": "constant", "peak": 1e-2})
    run(work)
    folder = folder_of(work)
    expected = {
        f"model.language_model.layers.{layer}.{block}.{name}.weight"
        for layer in (0, 1)
        for block, names in {
            "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
            "mlp": ("gate_proj", "up_proj", "down_proj"),
        }.items()
        for name in names
    }
    assert moved(base, folder) == expected
    plain: Any = load(base).model
    adapted = PeftModel.from_pretrained(plain, folder / adapters.FOLDER)
    merged: Any = load(folder).model
    ids = torch.arange(5, 60)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            merged(input_ids=ids).logits, adapted(input_ids=ids).logits, atol=1e-5, rtol=0
        )


def test_a_chosen_matrix_alone_has_an_adapter(tmp_path: Path, text: Path) -> None:
    lora = LORA.model_copy(update={"targets": TWO})
    work = work_of(tmp_path, text, adapter=lora, steps=2, with_images=False)
    run(work)
    assert {name.split(".")[-2] for name in moved(text, folder_of(work))} == {*TWO}
    saved = json.loads((folder_of(work) / "adapter" / "adapter_config.json").read_text())
    assert (saved["r"], saved["lora_alpha"], len(saved["target_modules"])) == (4, 8, 4)


PARTS = {
    "vision": lambda name: "visual" in name and "merger" not in name,
    "projector": lambda name: "merger" in name,
    "language": lambda name: "language_model.layers" in name or "language_model.norm" in name,
    "embeddings": lambda name: "embed_tokens" in name or "lm_head" in name,
}


@pytest.mark.parametrize("part", PARTS)
def test_frozen_parts_do_not_move_by_a_bit_and_all_others_do(
    tmp_path: Path, base: Path, part: str
) -> None:
    work = work_of(tmp_path, base, freeze=(part,), steps=2)
    run(work)
    names = set(weights(base))
    # A bias on keys says nothing: each query's scores are all higher by one number.
    idle = {name for name in names if name.endswith("k_proj.bias")}
    still = names - moved(base, folder_of(work))
    kept = {name for name in names if PARTS[part](name)}
    assert kept <= still
    assert {name for name in still - kept - idle if "qkv.bias" not in name} == set()


def test_a_tower_that_is_trained_alone_meets_rows_of_text(tmp_path: Path, base: Path) -> None:
    work = work_of(tmp_path, base, freeze=("language", "embeddings"), steps=1, with_images=False)
    run(work)
    assert moved(base, folder_of(work)) == set()


def test_a_checkpoint_holds_what_is_trained(tmp_path: Path, base: Path) -> None:
    work = work_of(tmp_path, base, adapter=LORA, steps=4, checkpoint=Checkpoint(every=2))
    with killed_after_saving(2):
        run(work)
    (path,) = tmp_path.glob("checkpoints/*/step-000002/state.pt")
    state = torch.load(path, weights_only=True)
    trainer = opened(base, work.stage.spec)
    own = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    assert sum(m.numel() for m in state["optimizer"]["masters"]) == own
    assert not any("weight" in name for name in state["buffers"])
    assert path.stat().st_size < 12 * own + 100_000


# ---- going on ----------------------------------------------------------------------------------------------------------


TRAINED = [
    pytest.param({"adapter": LORA.model_copy(update={"dropout": 0.2})}, id="adapter"),
    pytest.param({"freeze": ("vision", "embeddings")}, id="freeze"),
]


def _resumed(tmp_path: Path, make: Callable[[Path], Work], go: Any) -> tuple[Work, Work]:
    whole, stopped = make(tmp_path / "whole"), make(tmp_path / "stopped")
    go(whole)
    with killed_after_saving(2):
        go(stopped)
    go(stopped)
    return whole, stopped


@pytest.mark.parametrize("trained", TRAINED)
def test_a_stopped_run_goes_on_exactly(tmp_path: Path, base: Path, trained: dict[str, Any]) -> None:
    def make(state: Path) -> Work:
        return work_of(state, base, steps=5, checkpoint=Checkpoint(every=2), **trained)

    whole, stopped = _resumed(tmp_path, make, run)
    assert moved(folder_of(whole), folder_of(stopped)) == set()
    assert moved(base, folder_of(whole))


def test_a_stopped_rl_run_goes_on_exactly(tmp_path: Path, base: Path) -> None:
    def make(state: Path) -> Work:
        return rl_made(state, base, steps=4, adapter=LORA, algorithm=Grpo(clip=(0.2, 0.2), kl=0.1))

    whole, stopped = _resumed(tmp_path, make, rl.train)
    assert table(whole, "rollout") == table(stopped, "rollout")
    assert moved(folder_of(whole), folder_of(stopped)) == set()


# ---- gradients ---------------------------------------------------------------------------------------------------------


def test_gradients_are_those_of_plain_peft(tmp_path: Path, text: Path) -> None:
    """Packed and through the fused loss, against peft's own model, one row after another, and torch's cross-entropy."""
    work = work_of(tmp_path, text, adapter=LORA, with_images=False)
    spec: Any = work.stage.spec
    trainer = opened(text, spec)
    randomised(trainer.model)
    rows = _rows(work, spec, load(text), trainer.layout)
    samples = [rows.sample(i) for i in range(4)]
    batch = trainer.pack(samples)
    logp_N, _ = trainer.scorer(batch)
    (-logp_N.sum()).backward()  # type: ignore[no-untyped-call]
    found = {name: p.grad for name, p in trainer.model.named_parameters() if p.requires_grad}

    plain: Any = load(text).model
    config = LoraConfig(r=4, lora_alpha=8, target_modules=[*LORA.targets], task_type="CAUSAL_LM")
    naive = get_peft_model(plain, config)
    own = dict(trainer.model.named_parameters())
    for name, param in naive.named_parameters():
        if param.requires_grad:
            param.data.copy_(own[name.removeprefix("base_model.model.")])
    for sample in samples:
        ids = torch.tensor([list(sample.input_ids)])
        logits = naive(input_ids=ids).logits[0, :-1].float()
        first = sample.num_prompt
        cross_entropy(logits[first - 1 :], ids[0, first:], reduction="sum").backward()  # type: ignore[no-untyped-call]
    expected = {name: p.grad for name, p in naive.named_parameters() if p.requires_grad}
    assert len(expected) == len(found) == 2 * 2 * 7
    for name, grad in expected.items():
        torch.testing.assert_close(
            found[name.removeprefix("base_model.model.")], grad, atol=1e-5, rtol=1e-4, msg=name
        )


# ---- reinforcement -----------------------------------------------------------------------------------------------------


def test_the_reference_is_the_model_that_training_started_from(tmp_path: Path, base: Path) -> None:
    work = work_of(tmp_path, base, adapter=LORA)
    spec: Any = work.stage.spec
    trainer = opened(base, spec)
    randomised(trainer.model)
    loaded = load(base)
    assert loaded.model is not None
    rows = _rows(work, spec, loaded, trainer.layout)
    batch = trainer.pack([rows.sample(i) for i in range(4)])
    with torch.no_grad():
        start, _ = Scorer(loaded.model)(batch)
        with trainer.at_the_start() as reference:
            found, _ = reference(batch)
        adapted, _ = trainer.score(batch)
    assert torch.equal(found, start)
    assert (adapted - start).abs().max() > 1e-3
    assert all(p.requires_grad for n, p in trainer.model.named_parameters() if "lora_" in n)


def test_dropout_rests_after_rollouts_with_the_same_weights(tmp_path: Path, base: Path) -> None:
    """The old log-probabilities of minibatches are scored right after the engine is done."""
    dropping = LORA.model_copy(update={"dropout": 0.5})
    work = work_of(tmp_path, base, adapter=dropping)
    spec: Any = work.stage.spec
    trainer = opened(base, spec)
    randomised(trainer.model)
    rows = _rows(work, spec, load(base), trainer.layout)
    batch = trainer.pack([rows.sample(i) for i in range(4)])
    before, _ = trainer.score(batch)
    with slot_attending(trainer.model):
        pass
    assert torch.equal(trainer.score(batch)[0], before)
    assert trainer.model.training


def test_an_engine_apart_is_given_what_the_adapters_come_to(tmp_path: Path, base: Path) -> None:
    trainer = opened(base, rl_spec(adapter=LORA))
    randomised(trainer.model)
    apart: Any = load(base).model
    missing, unknown = apart.load_state_dict(dict(trainer.weights()), strict=False)
    assert not missing
    assert not unknown
    ids = torch.arange(5, 60)[None]
    with torch.no_grad():
        expected = trainer.model(input_ids=ids).logits
        torch.testing.assert_close(apart(input_ids=ids).logits, expected, atol=1e-5, rtol=0)


def test_rl_learns_by_adapters_with_a_reference_and_no_second_model(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("the model was loaded once more")

    monkeypatch.setattr(policy, "load_whole", never)
    work = rl_made(
        tmp_path,
        base,
        adapter=LORA.model_copy(update={"dropout": 0.1}),
        algorithm=Grpo(clip=(0.2, 0.2), kl=0.1),
        minibatch=Amount(value=2, unit="prompts"),
    )
    rl.train(work)
    assert metric(work, "kl")[0] < metric(work, "kl")[-1]
    changed = {n for n, w in rl_weights(work).items() if not torch.equal(w, weights(base)[n])}
    assert changed
    assert all(".layers." in name for name in changed)


# ---- mistakes ----------------------------------------------------------------------------------------------------------


def test_a_part_that_the_model_lacks(text: Path) -> None:
    with pytest.raises(RunError, match=r"tuned: `freeze` names vision, .*\(qwen2\) does not have"):
        opened(text, sft_spec(freeze=("vision",)))


def test_nothing_left_to_train(text: Path) -> None:
    """Embeddings and output layer are one matrix here."""
    with pytest.raises(RunError, match="leaves nothing"):
        opened(text, sft_spec(freeze=("language", "head")))


def test_matrices_that_the_layers_lack(text: Path) -> None:
    model: Any = load(text).model
    for layer in model.model.layers:
        layer.mlp.gate = layer.mlp.__dict__["_modules"].pop("gate_proj")
    with pytest.raises(
        RunError, match=r"goes to gate_proj, which the layers of the model \(qwen2\)"
    ):
        adapters.choose_trained(model, sft_spec(adapter=LORA))


NAMES = {
    "model.visual.blocks.0.attn.qkv.weight": "vision",
    "model.visual.merger.mlp.0.weight": "projector",
    "model.visual.deepstack_merger_list.0.linear_fc1.weight": "projector",
    "model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight": "vision",
    "model.multi_modal_projector.linear_1.weight": "projector",
    "model.image_newline": "projector",
    "model.vision_model.encoder.layers.0.mlp.fc1.weight": "vision",
    "model.connector.modality_projection.proj.weight": "projector",
    "model.text_model.layers.0.mlp.up_proj.weight": "language",
    "model.language_model.embed_tokens.weight": "embeddings",
    "model.embed_tokens.weight": "embeddings",
    "model.norm.weight": "language",
    "lm_head.weight": "head",
}


@pytest.mark.parametrize(("name", "part"), NAMES.items())
def test_the_part_of_a_weight_in_every_family(name: str, part: str) -> None:
    assert adapters.part_of(name) == part


FAMILIES: tuple[str, ...] = get_args(Fresh.model_fields["family"].annotation)


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_of_the_plan_are_those_of_the_model(tmp_path: Path, family: str) -> None:
    """Of every family: parts by the names of weights against parts by the numbers of a shape, and the adapters that peft made."""
    folder = fresh_folder(tmp_path / family, family)
    vision = {"vision_layers": 2, "vision_hidden": 64} if family != "qwen2" else {}
    source = {"family": family, "layers": 2, "hidden": 64, "heads": 4, "seed": 3, **vision}
    shape = shape_of(Model(name="tiny", source=Fresh.model_validate(source)))
    assert shape is not None
    model: Any = load(folder).model
    counts = dict.fromkeys(get_args(Part), 0)
    for name, param in model.named_parameters():
        counts[adapters.part_of(name)] += param.numel()
    expected = part_params(shape)
    for part in ("language", "embeddings", "head"):
        assert counts[part] == expected[part], part
    assert counts["vision"] + counts["projector"] == shape.vision_params
    assert (counts["projector"] > 0) == (family != "qwen2")
    adapters.choose_trained(model, sft_spec(adapter=LORA))
    own = sum(param.numel() for param in model.parameters() if param.requires_grad)
    assert own == adapter_params(shape, LORA.rank)


@pytest.mark.parametrize("family", [one for one in FAMILIES if one != "qwen2_5_vl"])
def test_both_forms_say_the_same_in_every_family(tmp_path: Path, family: str) -> None:
    start = fresh_folder(tmp_path / "start", family)
    trainer = opened(start, sft_spec(adapter=LORA))
    randomised(trainer.model)
    trainer.save_model(tmp_path / "saved")
    merged: Any = load_weights(tmp_path / "saved", start)
    plain: Any = load(start).model
    adapted = PeftModel.from_pretrained(plain, tmp_path / "saved" / adapters.FOLDER)
    ids = torch.arange(5, 60)[None]
    with torch.no_grad():
        expected = trainer.model.eval()(input_ids=ids).logits
        for model in (merged, adapted):
            torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-5, rtol=0)


def load_weights(folder: Path, base: Path) -> Any:
    """A model whose folder lacks what a stage copies from the one that it started from."""
    copy_companions(base, folder)
    return load(folder).model
