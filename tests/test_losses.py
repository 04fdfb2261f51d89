"""Losses equal TRL's own trainers on the same tensors; chunked equals plain; counts add up over ranks."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from omr_runtime.models import load
from omr_runtime.models.families import Layout
from omr_runtime.models.families.qwen_vl import patch_dim
from omr_runtime.train import logprobs, tiles
from omr_runtime.train.advantage import group_advantages
from omr_runtime.train.batching import Sample, make_sample, pack
from omr_runtime.train.logprobs import Scorer, token_logprobs
from omr_runtime.train.losses import (
    Counts,
    cross_entropy,
    kl_estimate,
    overlong_penalty,
    policy_loss,
    truncated_weights,
)
from omrlang.types import Algorithm, Dapo, DrGrpo, Grpo, Gspo, Overlong
from tests.training_parts import fresh_folder

os.environ.setdefault("HF_HUB_OFFLINE", "1")
PROMPTS = (3, 5, 4, 2)
RESPONSES = (7, 2, 5, 9)
LONGEST = 12
ADVANTAGES = torch.tensor([1.2, -0.7, -1.5, 0.4])
TIGHT, WIDE = (3e-4, 4e-4), (0.9, 9.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh_folder(tmp_path_factory.mktemp("text"), "qwen2")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    generator = torch.Generator().manual_seed(2)

    def tokens(num: int) -> list[int]:
        return torch.randint(10, 60, (num,), generator=generator).tolist()

    sizes = zip(PROMPTS, RESPONSES, strict=True)
    return [make_sample(f"r{i}", tokens(p), tokens(r), Layout()) for i, (p, r) in enumerate(sizes)]


@pytest.fixture(scope="module")
def oracle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_oracle(folder, tmp_path_factory)


def open_oracle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A real GRPOTrainer on a CPU; only its loss is asked."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    config = trl.GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=4,
        num_generations=4,
        gradient_accumulation_steps=1,
        beta=0.1,
        use_bias_correction_kl=False,
    )
    loaded = load(folder)
    trainer = trl.GRPOTrainer(
        model=loaded.model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=datasets.Dataset.from_dict({"prompt": ["a"] * 8}),
        processing_class=loaded.tokenizer,
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def _padded(values: list[list[float]], left: bool, fill: float = 0) -> torch.Tensor:
    width = max(map(len, values))
    rows = [
        [fill] * (width - len(v)) + v if left else v + [fill] * (width - len(v)) for v in values
    ]
    return torch.tensor(rows)


def _per_sequence(flat: torch.Tensor) -> list[list[float]]:
    return [part.tolist() for part in flat.split(list(RESPONSES))]


def _trl_inputs(
    samples: list[Sample], old: torch.Tensor | None, ref: torch.Tensor
) -> dict[str, Any]:
    prompts = [list(s.input_ids[: s.num_prompt]) for s in samples]
    responses = [list(s.input_ids[s.num_prompt :]) for s in samples]
    inputs = {
        "prompt_ids": _padded(prompts, left=True).long(),
        "prompt_mask": _padded([[1] * len(p) for p in prompts], left=True).long(),
        "completion_ids": _padded(responses, left=False).long(),
        "completion_mask": _padded([[1] * len(r) for r in responses], left=False).long(),
        "advantages": ADVANTAGES,
        "num_items_in_batch": torch.tensor(sum(RESPONSES)),
        "ref_per_token_logps": _padded(_per_sequence(ref), left=False),
    }
    if old is not None:
        inputs["old_per_token_logps"] = _padded(_per_sequence(old), left=False)
    return inputs


def _trl_loss(
    oracle: Any, algorithm: Algorithm, inputs: dict[str, Any]
) -> tuple[float, torch.Tensor]:
    """The loss of TRL's ``_compute_loss`` under the algorithm's settings, and its gradient."""
    oracle.importance_sampling_level = "sequence" if algorithm.kind == "gspo" else "token"
    if isinstance(algorithm, DrGrpo):
        oracle.loss_type = "dr_grpo"
    else:
        oracle.loss_type = "dapo" if algorithm.mean == "token" else "grpo"
    oracle.max_completion_length = LONGEST
    oracle.epsilon_low, oracle.epsilon_high = algorithm.clip
    oracle.beta = algorithm.kl
    oracle.args.delta = algorithm.dual_clip
    oracle.model.set_attn_implementation("sdpa")
    oracle.model.zero_grad()
    loss = oracle._compute_loss(oracle.model, inputs)
    loss.backward()
    return float(loss), _flat_gradient(oracle.model)


def _flat_gradient(model: Any) -> torch.Tensor:
    grads = [p.grad.flatten().clone() for p in model.parameters() if p.grad is not None]
    return torch.cat(grads)


CASES = [
    pytest.param(
        kind(clip=clip, kl=kl, mean=mean),
        moved,
        id=f"{kind.__name__}-{mean}-{clip}-kl{kl}-moved{moved}",
    )
    for kind in (Gspo, Grpo, Dapo)
    for mean in ("sequence", "token")
    for clip, kl, moved in (
        (TIGHT, 0.0, 0.05),
        (WIDE, 0.0, 0.05),
        (TIGHT, 0.1, 0.05),
        ((0.2, 0.28), 0.0, 0.0),
    )
]
CASES += [
    pytest.param(kind(clip=(0.2, 0.2), dual_clip=1.3), 0.6, id=f"{kind.__name__}-dual_clip")
    for kind in (Gspo, Grpo, Dapo)
]
CASES += [
    pytest.param(DrGrpo(clip=clip, kl=kl), moved, id=f"DrGrpo-{clip}-kl{kl}-moved{moved}")
    for clip, kl, moved in ((TIGHT, 0.1, 0.05), (WIDE, 0.0, 0.05), ((0.2, 0.2), 0.0, 0.0))
]


@pytest.mark.parametrize(("algorithm", "moved"), CASES)
def test_policy_losses_equal_trl(
    oracle: Any, samples: list[Sample], algorithm: Algorithm, moved: float
) -> None:
    """``moved`` is how far the old log-probabilities lie from the present ones; 0 leaves them out (ratio 1)."""
    batch = pack(samples)
    generator = torch.Generator().manual_seed(4)
    scorer = Scorer(oracle.model)
    with torch.no_grad():
        now_N, _ = scorer(batch)
    noise_N = torch.randn(len(now_N), generator=generator)
    old_N = now_N + moved * noise_N if moved else None
    ref_N = now_N + 0.1 * torch.randn(len(now_N), generator=generator)
    expected, expected_grad = _trl_loss(oracle, algorithm, _trl_inputs(samples, old_N, ref_N))

    scorer = Scorer(oracle.model)
    oracle.model.zero_grad()
    logp_N, _ = scorer(batch)
    counts = Counts(len(samples), sum(RESPONSES), LONGEST)
    terms = policy_loss(
        algorithm, logp_N, old_N, ADVANTAGES, batch.segment, batch.weight, counts, ref_N
    )
    terms.loss.backward()
    assert float(terms.loss) == pytest.approx(expected, abs=1e-5)
    assert (_flat_gradient(oracle.model) - expected_grad).norm() / expected_grad.norm() < 1e-5
    clipped = float(terms.clipped_low + terms.clipped_high)
    acts = algorithm.clip == TIGHT or algorithm.dual_clip is not None
    assert (clipped > 0) == (acts and moved > 0), "clipping is in effect or not, as the case says"


@pytest.mark.parametrize("algorithm", [Gspo(clip=WIDE), Grpo(clip=TIGHT, kl=0.1)])
def test_weights_for_the_engine_equal_trl(
    oracle: Any, samples: list[Sample], algorithm: Gspo | Grpo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL multiplies by the truncated ratio before the divergence is added; nothing flows back through it."""
    batch = pack(samples)
    with torch.no_grad():
        now_N, _ = Scorer(oracle.model)(batch)
    generator = torch.Generator().manual_seed(8)
    old_N, ref_N, drawn_N = (
        now_N + far * torch.randn(len(now_N), generator=generator) for far in (0.05, 0.1, 0.6)
    )
    weight_N = truncated_weights(old_N, drawn_N, 1.5)
    assert 0 < float((weight_N == 1.5).float().mean()) < 1
    inputs = _trl_inputs(samples, old_N, ref_N)
    ratio_N = torch.exp(old_N - drawn_N).clamp(max=1.5)
    inputs["importance_sampling_ratio"] = _padded(_per_sequence(ratio_N), left=False)
    monkeypatch.setattr(oracle, "use_vllm", True)
    monkeypatch.setattr(oracle, "vllm_importance_sampling_correction", True)
    expected, expected_grad = _trl_loss(oracle, algorithm, inputs)
    oracle.model.zero_grad()
    logp_N, _ = Scorer(oracle.model)(batch)
    counts = Counts(len(samples), sum(RESPONSES))
    terms = policy_loss(
        algorithm, logp_N, old_N, ADVANTAGES, batch.segment, batch.weight, counts, ref_N,
        rollout_weight_N=weight_N,
    )  # fmt: skip
    terms.loss.backward()
    assert float(terms.loss) == pytest.approx(expected, abs=1e-5)
    assert (_flat_gradient(oracle.model) - expected_grad).norm() / expected_grad.norm() < 1e-5
    live_N = now_N.clone().requires_grad_()
    assert not truncated_weights(live_N, drawn_N, 1.5).requires_grad


@pytest.mark.parametrize("packing", [False, True])
def test_cross_entropy_equals_trl(
    folder: Path, samples: list[Sample], tmp_path: Path, packing: bool
) -> None:
    """SFTTrainer's loss over prompt and completion columns, padded and packed, against the packed token mean."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    rows = {
        "input_ids": [list(s.input_ids) for s in samples],
        "completion_mask": [[0] * s.num_prompt + [1] * s.num_response for s in samples],
    }
    config = trl.SFTConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=4,
        packing=packing,
        padding_free=False if not packing else None,
        max_length=64,
        completion_only_loss=True,
    )
    loaded = load(folder)
    trainer = trl.SFTTrainer(
        model=loaded.model,
        args=config,
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=loaded.tokenizer,
    )
    trainer.model.train()
    expected = float(
        trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    )
    batch = pack(samples)
    logp_N, _ = Scorer(loaded.model)(batch)
    assert float(cross_entropy(logp_N, batch.weight, sum(RESPONSES))) == pytest.approx(
        expected, abs=1e-5
    )


# ---- with images -----------------------------------------------------------------------------------------------


GRIDS = ((4, 6), (), (4, 4), (2, 2))
"""Patches of the image that stands first in each prompt; the second has none."""


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = fresh_folder(tmp_path_factory.mktemp("images"), "qwen2_5_vl")
    return open_oracle(folder, tmp_path_factory)


@pytest.fixture(scope="module")
def pictured(seeing: Any) -> list[Sample]:
    """Rows of the same lengths as ``samples``, three of them with an image before the prompt."""
    generator = torch.Generator().manual_seed(2)
    config, layout = seeing.model.config, Layout.of(seeing.model.config)
    made = []
    for i, (prompt, response, grid) in enumerate(zip(PROMPTS, RESPONSES, GRIDS, strict=True)):
        ids = torch.randint(10, 60, (prompt + response,), generator=generator).tolist()
        patches, images = math.prod(grid) if grid else 0, None
        if grid:
            pixels = torch.randn(patches, patch_dim(config), generator=generator)
            images = {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, *grid]])}
        ids[1:1] = [config.image_token_id] * (patches // 4)
        cut = len(ids) - response
        made.append(make_sample(f"r{i}", ids[:cut], ids[cut:], layout, images))
    return made


def _pictures(samples: list[Sample]) -> dict[str, Any]:
    images = [s.images for s in samples if s.images]
    return {
        name: torch.cat([one[name] for one in images])
        for name in ("pixel_values", "image_grid_thw")
    }


@pytest.mark.parametrize(
    "algorithm",
    [Gspo(clip=TIGHT, kl=0.1), Grpo(clip=WIDE), DrGrpo(clip=TIGHT), Dapo(clip=TIGHT, kl=0.1)],
    ids=lambda algorithm: algorithm.kind,
)
def test_policy_losses_over_images_equal_trl(
    seeing: Any, pictured: list[Sample], algorithm: Algorithm
) -> None:
    batch, generator = pack(pictured), torch.Generator().manual_seed(4)
    with torch.no_grad():
        now_N, _ = Scorer(seeing.model)(batch)
    old_N, ref_N = (now_N + x * torch.randn(len(now_N), generator=generator) for x in (0.05, 0.1))
    inputs = _trl_inputs(pictured, old_N, ref_N) | _pictures(pictured)
    inputs["num_images"] = [bool(grid) + 0 for grid in GRIDS]
    whole = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    inputs["mm_token_type_ids"] = (whole == seeing.model.config.image_token_id).long()
    expected, expected_grad = _trl_loss(seeing, algorithm, inputs)

    seeing.model.zero_grad()
    logp_N, _ = Scorer(seeing.model)(batch)
    counts = Counts(len(pictured), sum(RESPONSES), LONGEST)
    terms = policy_loss(
        algorithm, logp_N, old_N, ADVANTAGES, batch.segment, batch.weight, counts, ref_N
    )
    terms.loss.backward()
    assert float(terms.loss) == pytest.approx(expected, abs=1e-5)
    assert (_flat_gradient(seeing.model) - expected_grad).norm() / expected_grad.norm() < 1e-4


def test_cross_entropy_over_images_equals_trl(
    seeing: Any, pictured: list[Sample], tmp_path: Path
) -> None:
    """SFTTrainer's loss over rows padded to the longest, as its collator for images makes them."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    config = trl.SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[])
    trainer = trl.SFTTrainer(
        model=seeing.model,
        args=config,
        train_dataset=datasets.Dataset.from_dict({"input_ids": [[1, 2, 3]]}),
        processing_class=seeing.processing_class,
    )
    ids = [list(s.input_ids) for s in pictured]
    input_ids = _padded(ids, left=False).long()
    mask = _padded([[1] * len(one) for one in ids], left=False).long()
    learned = [[0] * s.num_prompt + [1] * s.num_response for s in pictured]
    labels = input_ids.masked_fill(_padded(learned, left=False) == 0, -100)
    kinds = ((input_ids == seeing.model.config.image_token_id) & (mask == 1)).long()
    inputs = {"input_ids": input_ids, "attention_mask": mask, "labels": labels, "mm_token_type_ids": kinds}  # fmt: skip
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, inputs | _pictures(pictured))
    loss.backward()
    expected_grad = _flat_gradient(trainer.model)
    batch = pack(pictured)
    trainer.model.zero_grad()
    logp_N, _ = Scorer(trainer.model)(batch)
    mine = cross_entropy(logp_N, batch.weight, sum(RESPONSES))
    mine.backward()
    assert float(mine) == pytest.approx(float(loss), abs=1e-5)
    assert (_flat_gradient(trainer.model) - expected_grad).norm() / expected_grad.norm() < 1e-4


def test_estimators_of_the_divergence() -> None:
    """Over all tokens that p may draw: k1 and k3 are the divergence, k2 has its gradient, k1 none at all. Also in the loss."""
    generator = torch.Generator().manual_seed(3)
    logits_V, ref_V = torch.randn(2, 30, generator=generator)
    logits_V.requires_grad_()
    logp_V, q_V = logits_V.log_softmax(0), ref_V.log_softmax(0)
    divergence = (logp_V.exp() * (logp_V - q_V)).sum()
    (exact_V,) = torch.autograd.grad(divergence, logits_V, retain_graph=True)
    found = {}
    for name in ("k1", "k2", "k3"):
        estimate_V = kl_estimate(logp_V, q_V, name)
        weighted = (logp_V.exp().detach() * estimate_V).sum()
        (grad_V,) = torch.autograd.grad(weighted, logits_V, retain_graph=True)
        found[name] = float(weighted), grad_V
        algorithm = Grpo(clip=WIDE, kl=0.5, kl_estimator=name)
        ones_V, advantage_S = torch.ones(30), torch.zeros(1)
        terms = policy_loss(
            algorithm, logp_V, None, advantage_S, torch.zeros(30).long(), ones_V, Counts(1, 30), q_V
        )
        assert float(terms.loss) == pytest.approx(0.5 * float(estimate_V.mean()), rel=1e-5)
    assert found["k1"][0] == pytest.approx(float(divergence), rel=1e-5)
    assert found["k3"][0] == pytest.approx(float(divergence), rel=1e-5)
    torch.testing.assert_close(found["k1"][1], torch.zeros(30), atol=1e-6, rtol=0)
    torch.testing.assert_close(found["k2"][1], exact_V)


@pytest.mark.parametrize(
    "algorithm", [Gspo(clip=TIGHT, entropy=0.3), Dapo(clip=TIGHT, entropy=0.3)]
)
def test_an_entropy_bonus_has_the_gradient_of_the_entropy(
    folder: Path, samples: list[Sample], algorithm: Gspo | Dapo
) -> None:
    """Without advantages the loss is the bonus alone: its gradient is autograd's of the plain formula over whole logits."""
    model = load(folder).model
    assert model is not None
    batch, scorer = pack(samples), Scorer(model, entropy_grad=True)
    hidden_ND = model.base_model(**batch.model_inputs()).last_hidden_state[0][batch.predict]
    spread = torch.distributions.Categorical(logits=model.get_output_embeddings()(hidden_ND))
    entropies = spread.entropy().split(list(RESPONSES))
    mean = torch.stack([one.mean() for one in entropies]).mean()
    expected = mean if algorithm.mean == "sequence" else torch.cat(entropies).mean()
    (-0.3 * expected).backward()
    expected_grad = _flat_gradient(model)
    model.zero_grad()
    logp_N, entropy_N = scorer(batch)
    counts = Counts(len(samples), sum(RESPONSES))
    terms = policy_loss(
        algorithm,
        logp_N,
        None,
        0 * ADVANTAGES,
        batch.segment,
        batch.weight,
        counts,
        None,
        entropy_N,
    )
    terms.loss.backward()
    assert float(terms.loss) == pytest.approx(-0.3 * float(expected), abs=1e-6)
    assert (_flat_gradient(model) - expected_grad).norm() / expected_grad.norm() < 1e-5


def test_dual_clip_bounds_negative_advantages_alone() -> None:
    """Released scripts leave verl's ``clip_ratio_c`` at 3: ``min(max(- A r, - A clip(r)), - 3 A)`` where A < 0."""
    ratio_N = torch.tensor([0.1, 1.0, 2.0, 5.0, 5.0])
    advantage_S = torch.tensor([-2.0, -2.0, -2.0, -2.0, 2.0])
    algorithm = Grpo(clip=(0.2, 0.2), dual_clip=3.0)
    logp_N = ratio_N.log().requires_grad_()
    terms = policy_loss(
        algorithm, logp_N, torch.zeros(5), advantage_S, torch.arange(5), torch.ones(5), Counts(5, 5)
    )
    (grad_N,) = torch.autograd.grad(terms.loss, logp_N)
    assert float(terms.loss) == pytest.approx((1.6 + 2.0 + 4.0 + 6.0 - 2.4) / 5)
    assert (grad_N != 0).tolist() == [False, True, True, False, False]


def test_group_advantages_equal_trl() -> None:
    """TRL: reward less the group's mean over its standard deviation plus 1e-4; without it for ``scale_rewards="none"``."""
    rewards_G = torch.tensor([1.0, 0.0, 0.0, 0.2])
    centred_G = rewards_G - rewards_G.mean()
    found = group_advantages(rewards_G.tolist())
    torch.testing.assert_close(torch.tensor(found.values), centred_G / (rewards_G.std() + 1e-4))
    plain = group_advantages(rewards_G.tolist(), by_spread=False)
    torch.testing.assert_close(torch.tensor(plain.values), centred_G)
    assert group_advantages([0.1] * 4).values == (0.0,) * 4


def test_overlong_penalty_is_dapos() -> None:
    soft = Overlong(buffer=4)
    penalties = [overlong_penalty(n, 20, soft) for n in (10, 16, 18, 20, 25)]
    assert penalties == [0.0, 0.0, -0.5, -1.0, -1.0]
    assert overlong_penalty(18, 20, Overlong(buffer=4, factor=0.5)) == pytest.approx(-0.25)


@pytest.mark.parametrize(
    "algorithm",
    [
        Gspo(clip=TIGHT),
        Grpo(clip=(0.2, 0.2)),
        DrGrpo(clip=(0.2, 0.2)),
        Dapo(clip=(0.2, 0.3)),
    ],
)
def test_micro_batches_add_up(algorithm: Algorithm) -> None:
    """A step cut in two, as two ranks or two micro-batches do, has the loss of the whole."""
    segment_N = torch.arange(4).repeat_interleave(torch.tensor(RESPONSES))
    generator = torch.Generator().manual_seed(5)
    logp_N, old_N = torch.randn(2, sum(RESPONSES), generator=generator) * 0.1 - 2
    counts = Counts(4, sum(RESPONSES), LONGEST)

    def part(sequences: slice) -> float:
        chosen = (segment_N >= sequences.start) & (segment_N < sequences.stop)
        ones = torch.ones(int(chosen.sum()))
        local = segment_N[chosen] - sequences.start
        terms = policy_loss(
            algorithm, logp_N[chosen], old_N[chosen], ADVANTAGES[sequences], local, ones, counts
        )
        return float(terms.loss)

    assert part(slice(0, 2)) + part(slice(2, 4)) == pytest.approx(part(slice(0, 4)), abs=1e-6)


def test_chunks_equal_whole_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients, with chunks of three tokens; entropy and temperature too."""
    generator = torch.Generator().manual_seed(6)
    hidden_ND = torch.randn(10, 8, generator=generator, requires_grad=True)
    weight_VD = torch.randn(33, 8, generator=generator, requires_grad=True)
    targets_N = torch.randint(0, 33, (10,), generator=generator)
    logits_NV = hidden_ND @ weight_VD.T / 0.7
    spread = torch.distributions.Categorical(logits=logits_NV)
    expected = spread.log_prob(targets_N)
    expected_grads = torch.autograd.grad(
        expected.sin().sum(), (hidden_ND, weight_VD), retain_graph=True
    )

    monkeypatch.setattr(logprobs, "CHUNK", {"cpu": 3 * 33})
    layer = torch.nn.Linear(8, 33, bias=False)
    layer.weight = torch.nn.Parameter(weight_VD.detach())
    heads = ((lambda h: h @ weight_VD.T, weight_VD), (layer, layer.weight))
    whole = (expected.sin() + spread.entropy().square()).sum()
    with_entropy = torch.autograd.grad(whole, (hidden_ND, weight_VD), retain_graph=True)
    for head, weight in heads:
        logp_N, entropy_N = token_logprobs(head, hidden_ND, targets_N, 33, 0.7, entropy_grad=True)
        both = torch.autograd.grad(
            (logp_N.sin() + entropy_N.square()).sum(), (hidden_ND, weight), retain_graph=True
        )
        only = torch.autograd.grad(entropy_N.square().sum(), (hidden_ND, weight))
        alone = torch.autograd.grad(
            spread.entropy().square().sum(), (hidden_ND, weight_VD), retain_graph=True
        )
        for grad, wanted in zip((*both, *only), (*with_entropy, *alone), strict=True):
            torch.testing.assert_close(grad, wanted, atol=1e-5, rtol=1e-4)
    for head, weight in heads:  # cut by tokens, and by the vocabulary
        logp_N, entropy_N = token_logprobs(head, hidden_ND, targets_N, 33, 0.7)
        grads = torch.autograd.grad(logp_N.sin().sum(), (hidden_ND, weight))
        torch.testing.assert_close(logp_N, expected)
        torch.testing.assert_close(entropy_N, spread.entropy())
        assert not entropy_N.requires_grad
        for grad, wanted in zip(grads, expected_grads, strict=True):
            torch.testing.assert_close(grad, wanted)


@pytest.mark.parametrize("trained", ["all", "weights", "hidden"])
def test_tiles_of_the_vocabulary_with_a_bias(monkeypatch: pytest.MonkeyPatch, trained: str) -> None:
    """With what has no gradient left out, and logits far from zero."""
    torch.manual_seed(2)
    head = torch.nn.Linear(8, 70).requires_grad_(trained != "hidden")
    hidden_ND = (5 * torch.randn(20, 8)).requires_grad_(trained != "weights")
    targets_N = torch.randint(0, 70, (20,))
    inputs = [x for x in (hidden_ND, *head.parameters()) if x.requires_grad]
    found = []
    for chunk in (20 * 7, 20 * 70):
        monkeypatch.setattr(logprobs, "CHUNK", {"cpu": chunk})
        logp_N, entropy_N = token_logprobs(head, hidden_ND, targets_N, 70)
        found.append([logp_N, entropy_N, *torch.autograd.grad(logp_N.cos().sum(), inputs)])
    for tiled, whole in zip(*found, strict=True):
        torch.testing.assert_close(tiled, whole, atol=1e-4, rtol=1e-4)


def test_tiles_never_hold_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    product = tiles._product

    def counted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen.append(len(a) * b.shape[1])
        return product(a, b)

    monkeypatch.setattr(logprobs, "CHUNK", {"cpu": 30 * 16})
    monkeypatch.setattr(tiles, "_product", counted)
    hidden_ND = torch.randn(30, 8, requires_grad=True)
    logp_N, _ = token_logprobs(torch.nn.Linear(8, 100), hidden_ND, torch.zeros(30).long(), 100)
    logp_N.sum().backward()
    assert max(seen) == 30 * 16


def test_logits_never_stand_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "CHUNK", {"cpu": 4 * 100})
    head = torch.nn.Linear(8, 100)
    sizes = SimpleNamespace(seen=[])
    head.register_forward_hook(lambda _, __, out: sizes.seen.append(len(out)))
    logp_N, _ = token_logprobs(
        head, torch.randn(30, 8, requires_grad=True), torch.zeros(30).long(), 100
    )
    logp_N.sum().backward()
    assert max(sizes.seen) == 4
