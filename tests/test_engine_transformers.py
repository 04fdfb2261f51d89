"""Generation with transformers: equal to the library's own greedy search, the same whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_parts import PROMPT, drawn_rows, fresh_folder

from omr_runtime import chat
from omr_runtime.engines.decode import Ask, Draw, Sampled, samples
from omr_runtime.engines.protocol import Completion, Decoding, Request
from omr_runtime.engines.sampling import next_tokens, uniform_rows, uniforms
from omr_runtime.engines.transformers import TransformersEngine
from omr_runtime.models import Loaded, load
from omr_runtime.store import ImageStore


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen2"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(fresh_folder(tmp_path_factory.mktemp("model"), request.param))


@pytest.fixture(scope="module")
def asks(loaded: Loaded, tmp_path_factory: pytest.TempPathFactory) -> list[Ask]:
    """Prompts of different lengths; in a vision model's some have a picture and some have none."""
    state = tmp_path_factory.mktemp("state")
    store, found = ImageStore(state), []
    for i, row in enumerate(drawn_rows(state, 10)):
        images = row["images"] if loaded.is_vision and i % 3 else []
        asked = {**row, "images": images, "question": row["question"] + " red" * i}
        made = chat.encode_prompt(loaded, asked, PROMPT, [store.open(d) for d in images])
        found.append(Ask(made.input_ids, (100 * i,), made.images))
    return found


def draw(loaded: Loaded, temperature: float, **changes: Any) -> Draw:
    return Draw(temperature, 12, frozenset(loaded.stop_ids), **changes)


def pictures(loaded: Loaded, ask: Ask, ids: torch.Tensor) -> dict[str, Any]:
    """What the library's model is told of a prompt's pictures."""
    if ask.inputs is None:
        return {}
    return {
        **ask.inputs,
        "mm_token_type_ids": torch.eq(ids, loaded.image_token_id or -1).int(),
    }


def greedy(loaded: Loaded, ask: Ask) -> list[int]:
    """The library's own greedy search, one prompt alone."""
    model: Any = loaded.model
    ids = torch.tensor([ask.input_ids])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=12,
        do_sample=False,
        **pictures(loaded, ask, ids),
    )
    return list(out[0, len(ask.input_ids) :].tolist())


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_a_mixed_batch_equals_greedy_search_alone(
    loaded: Loaded, asks: Sequence[Ask], batch: int
) -> None:
    found = samples(loaded.model, asks, draw(loaded, 0.0), batch)
    assert [one.token_ids for one in found] == [greedy(loaded, ask) for ask in asks]


def test_logprobs_are_those_of_a_plain_forward_pass(loaded: Loaded, asks: Sequence[Ask]) -> None:
    model: Any = loaded.model
    for one in samples(model, asks, draw(loaded, 0.7), 64):
        ask = asks[one.ask]
        ids = torch.tensor([ask.input_ids + one.token_ids])
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False, **pictures(loaded, ask, ids)).logits
        table = torch.log_softmax(logits[0, len(ask.input_ids) - 1 : -1] / 0.7, -1)
        expected = table.gather(1, torch.tensor(one.token_ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(one.logprobs), expected, atol=1e-4, rtol=1e-4)


def test_a_sample_does_not_depend_on_its_batch(loaded: Loaded, asks: Sequence[Ask]) -> None:
    several = [replace(ask, seeds=tuple(range(ask.seeds[0], ask.seeds[0] + 5))) for ask in asks]
    together = samples(loaded.model, several, draw(loaded, 1.0), 64)
    for batch in (1, 7):
        apart = samples(loaded.model, several, draw(loaded, 1.0), batch)
        assert [one.token_ids for one in apart] == [one.token_ids for one in together]
    (alone,) = samples(loaded.model, [replace(asks[3], seeds=(302,))], draw(loaded, 1.0), 64)
    assert alone.token_ids == together[3 * 5 + 2].token_ids


def test_every_sample_is_handed_over_once_and_stops_are_told_apart(
    loaded: Loaded, asks: Sequence[Ask]
) -> None:
    several = [replace(ask, seeds=tuple(range(8))) for ask in asks]
    everything = Draw(1.0, 6, frozenset(range(30)))
    found = samples(loaded.model, several, everything, 5)
    assert [(one.ask, one.sample) for one in found] == [(a, s) for a in range(10) for s in range(8)]
    assert {one.stopped for one in found} == {True, False}
    for one in found:
        assert one.stopped == (one.token_ids[-1] < 30)
        assert one.stopped or len(one.token_ids) == 6
        assert all(token >= 30 for token in one.token_ids[:-1])


def test_choices_and_placeholders(loaded: Loaded, asks: Sequence[Ask]) -> None:
    end = loaded.tokenizer.eos_token_id
    choices = ((5, 6, end), (5, 7, 8, end), (9, end))
    found = samples(loaded.model, asks, draw(loaded, 1.0, choices=choices), 64)
    assert {tuple(one.token_ids) for one in found} <= set(choices)
    favourite = greedy(loaded, asks[0])[0]
    barred = samples(loaded.model, asks[:1], draw(loaded, 0.0, never=(favourite,)), 64)
    assert favourite not in barred[0].token_ids


def test_draws_follow_the_distribution_and_its_cuts() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    u = torch.linspace(0, 1, 4001, dtype=torch.float64)[:-1]
    rows = logits.expand(len(u), -1)
    tokens, logprobs = next_tokens(rows, u, 0.5)
    share = torch.bincount(tokens, minlength=4) / len(u)
    expected = torch.softmax(logits / 0.5, -1)
    torch.testing.assert_close(share, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(logprobs, expected.log()[tokens])
    assert set(next_tokens(rows, u, 1.0, top_k=2)[0].tolist()) == {0, 1}
    assert set(next_tokens(rows, u, 1.0, top_p=0.5)[0].tolist()) == {0}
    assert set(next_tokens(rows, u, 1.0, top_p=0.7)[0].tolist()) == {0, 1}


def test_longer_draws_begin_with_shorter_ones() -> None:
    assert torch.equal(uniforms(5, 100)[:7], uniforms(5, 7))
    assert not torch.equal(uniform_rows([5, 6], 3)[0], uniform_rows([5, 6], 3)[1])


def request(row: dict[str, Any], images: tuple[Path, ...], **changes: Any) -> Request:
    decoding = Decoding(temperature=1.0, max_tokens=6, **changes)
    return Request(row["id"], row, PROMPT, (0, 1), (10, 11), decoding, images)


def test_the_engine_gives_completions(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    loaded = load(fresh_folder(tmp_path / "model"))
    engine = TransformersEngine(loaded, batch=3)
    store, rows = ImageStore(tmp_path), drawn_rows(tmp_path, 3)
    good = [request(row, (store.path(row["images"][0]),), logprobs=True) for row in rows[:2]]
    found: list[Completion] = []
    engine.generate([*good, request(rows[2], (tmp_path / "absent",))], found.append)
    by_place = {(one.key, one.index): one for one in found}
    assert len(by_place) == 6
    for ask in good:
        one = by_place[ask.key, 1]
        assert one.finish in ("stop", "length")
        assert one.token_ids is not None
        assert one.prompt_token_ids is not None
        assert one.logprobs is not None
        assert one.num_tokens == len(one.token_ids) == len(one.logprobs)
        assert one.num_prompt_tokens == len(one.prompt_token_ids)
        assert one.mean_logprob == pytest.approx(sum(one.logprobs) / one.num_tokens)
    broken = by_place["row0002", 0]
    assert broken.finish == "error"
    assert "image cannot be read" in str(broken.error)


def test_new_weights_change_what_is_said(
    loaded: Loaded, asks: Sequence[Ask], tmp_path: Path
) -> None:
    kind = "qwen2_5_vl" if loaded.is_vision else "qwen2"
    one = load(fresh_folder(tmp_path / "one", kind, seed=11))
    other = load(fresh_folder(tmp_path / "other", kind, seed=12))
    engine = TransformersEngine(one, batch=8)
    assert other.model is not None

    def said() -> list[list[float]]:
        found: list[Sampled] = []
        engine.roll(asks, draw(loaded, 0.0), found.append)
        return [s.logprobs for s in sorted(found, key=lambda s: s.ask)]

    before = said()
    engine.update_weights(other.model.state_dict().items())
    expected = [s.logprobs for s in samples(other.model, asks, draw(loaded, 0.0), 8)]
    assert said() == expected != before
