"""Near duplicates: who is alike, who stays, and that no order, split or interruption of the input matters."""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from plans import mix
from verify_parts import condition, table, work_order

from omr_runtime.near import encoders
from omr_runtime.near.clusters import clusters
from omr_runtime.near.pictures import Pictures
from omr_runtime.near.words import chance, rows_of_band, word_runs
from omr_runtime.stages import filter as filter_stage
from omr_runtime.stages import mix as mix_stage
from omr_runtime.store import ImageStore
from omr_runtime.work import Shards, Work
from omrlang.expressions import row_expression
from omrlang.schema import Filter, Mix
from omrlang.types import (
    Amount,
    Binary,
    Col,
    Count,
    FolderModel,
    Lit,
    Minhash,
    Model,
    Near,
    Phash,
    RowExpr,
)

TIN = "Tin has 12 red pens and 5 blue pens in a box"


def column(name: str) -> RowExpr:
    return row_expression(Col(name=name), name, "list" if name == "images" else "text", [])


def near(*names: str, at: float = 0.5, **more: Any) -> Near:
    return Near(columns=tuple(column(name) for name in names or ("question",)), at=at, **more)


def asked(id: str, question: str | None, **more: Any) -> dict[str, Any]:
    """A row whose content is its question and images."""
    content = f"{question} {more.get('images')}"
    return {"id": id, "source": "raw", "content": content, "question": question, **more}


def filtered(folder: Path, unique: Near, rows: Sequence[dict[str, Any]], **more: Any) -> Work:
    spec = Filter(name="distinct", seed=7, rows="raw", unique=unique, **more)
    work = work_order(spec, folder, {"raw": [*rows]})
    filter_stage.run(work)
    return work


def kept(work: Work, name: str = "question") -> set[Any]:
    return {line[name] for line in table(work, "row")}


# ---- what a run leaves -------------------------------------------------------------------------


def test_every_row_that_goes_keeps_who_stays_and_whom_it_is_like(tmp_path: Path) -> None:
    questions = [TIN, f"{TIN} now", f"{TIN} now and then", "What is the area of a circle?", TIN]
    rows = [asked(str(place), question) for place, question in enumerate(questions)]
    work = filtered(tmp_path, near(), rows)
    stays = {line["id"] for line in table(work, "row")}
    dropped = {line["row"]: line for line in table(work, "dropped")}
    assert len(stays) == 2
    assert stays | set(dropped) == {"0", "1", "2", "3", "4"}
    assert {line["reason"] for line in dropped.values()} == {"unique = near(question, at = 0.5)"}
    edges = {line["child"]: line for line in table(work, "edge")}
    assert set(edges) == set(dropped)
    assert {line["role"] for line in edges.values()} == {"duplicate_of"}
    assert {line["parent"] for line in edges.values()} == stays - {"3"}
    verdicts = {line["row"]: line for line in table(work, "verdict")}
    assert all(verdicts[name]["ok"] for name in stays)
    for name in dropped:
        assert verdicts[name]["ok"] is False
        assert verdicts[name]["score"] >= 0.5
        assert verdicts[name]["reason"].startswith("like row ")


def test_a_row_tied_by_another_says_over_whom(tmp_path: Path) -> None:
    words = [f"w{place}" for place in range(40)]
    chain = [" ".join(words[start : start + 20]) for start in (0, 4, 8, 12)]
    work = filtered(tmp_path, near(), [asked(str(p), text) for p, text in enumerate(chain)])
    (stays,) = (line["id"] for line in table(work, "row"))
    said = {line["row"]: line["reason"] for line in table(work, "verdict") if not line["ok"]}
    tied = [name for name in said if abs(int(name) - int(stays)) > 1]
    assert tied, "somebody is two steps away"
    for name in tied:
        step = int(name) + (1 if int(name) < int(stays) else -1)
        assert said[name] == f"like row {step}, for which row {stays} stays"


def test_keep_comes_first_and_the_cap_last(tmp_path: Path) -> None:
    right = condition(Binary(op="==", left=Col(name="answer"), right=Lit(value="4")), "answer == 4")
    texts = ["one two three four", "one two three four", "five six seven", "eight nine ten eleven"]
    rows = [
        asked(str(place), "q", parent="p", response=text, answer="4" if place else "5")
        for place, text in enumerate(texts)
    ]
    cap = Amount(value=2, unit="per parent")
    work = filtered(tmp_path, near("response"), rows, keep=right, at_most=cap)
    reasons = Counter(line["reason"] for line in table(work, "dropped"))
    assert reasons == {"answer == 4": 1, "at_most = 2 per parent": 1}, "row 0 is nobody's duplicate"
    both = filtered(tmp_path / "again", near("response"), rows, at_most=cap)
    assert len(table(both, "row")) == 2
    assert len(table(both, "edge")) == 1
    assert sum(line["num_judged"] for line in table(both, "tally")) == 4


def test_no_rows_and_missing_texts(tmp_path: Path) -> None:
    assert table(filtered(tmp_path / "none", near(), []), "row") == []
    rows = [asked("a", None), asked("b", None), asked("c", "?!"), asked("d", "?!")]
    work = filtered(tmp_path / "some", near(), rows)
    assert len(table(work, "row")) == 3, "a missing text is like none, two equal ones are one"


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    work = filtered(tmp_path, near(), [asked("a", TIN), asked("b", TIN)])
    assert {path.name for path in Path(work.out).iterdir() if path.is_dir()} == set()


def test_a_worker_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{TIN} number {n // 3} of the boxes" for n in range(40)]
    rows = [asked(f"{n:02}", text) for n, text in enumerate(texts)]
    monkeypatch.setattr("omr_runtime.verify.slices.slicing.__defaults__", (10,))
    whole = filtered(tmp_path / "whole", near(at=0.9), rows)
    spec = whole.stage.spec
    work = work_order(spec, tmp_path / "cut", {"raw": rows})
    write, calls = Shards.write, 0

    def killed(self: Shards, number: int, tables: Any) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise KeyboardInterrupt
        write(self, number, tables)

    monkeypatch.setattr(Shards, "write", killed)
    for _ in range(20):
        try:
            filter_stage.run(work)
            break
        except KeyboardInterrupt:
            assert not (Path(work.out) / "done.json").exists()
    for name in ("row", "dropped", "edge", "verdict"):
        assert table(work, name) == table(whole, name)


# ---- laws --------------------------------------------------------------------------------------

WORDS = st.sampled_from(["a", "b", "c", "d"])
TEXTS = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)
QUESTIONS = st.lists(TEXTS, min_size=1, max_size=14)


def jaccard(one: str, other: str, num_words: int = 2) -> float:
    a, b = set(word_runs(one, num_words)), set(word_runs(other, num_words))
    return len(a & b) / len(a | b)


def components(texts: Sequence[str], at: float) -> set[frozenset[str]]:
    """By comparing all with all."""
    found = [{text} for text in dict.fromkeys(texts)]
    for one, other in combinations(dict.fromkeys(texts), 2):
        if round(jaccard(one, other), 6) >= at:
            joined = [part for part in found if one in part or other in part]
            found = [part for part in found if part not in joined] + [set().union(*joined)]
    return {frozenset(part) for part in found}


def run_split(unique: Near, texts: Sequence[str], cuts: Sequence[int], seed: int) -> Work:
    """The texts in another order, as rows of other ids, in files of other sizes."""
    shuffled = [*texts]
    random.Random(seed).shuffle(shuffled)
    rows = [asked(f"{seed}-{place}", text) for place, text in enumerate(shuffled)]
    folder = Path(tempfile.mkdtemp())
    spec = Filter(name="distinct", seed=7, rows="raw", unique=unique)
    work = work_order(spec, folder, {"raw": []})
    ends = sorted({min(cut, len(rows)) for cut in cuts} | {0, len(rows)})
    for number, (start, end) in enumerate(pairwise(ends)):
        Shards(work.inputs[0].folder).write(number, {"row": rows[start:end]})
    filter_stage.run(work)
    return work


@settings(max_examples=25, deadline=None)
@given(QUESTIONS, st.sampled_from([0.3, 0.5, 0.8, 1.0]), st.lists(st.integers(1, 13), max_size=3))
def test_one_of_each_component_stays_in_any_order_and_split(
    texts: list[str], at: float, cuts: list[int]
) -> None:
    unique = near(at=at, text=Minhash(words=2))
    works = [run_split(unique, texts, cut, seed) for seed, cut in enumerate(([], cuts))]
    ones, others = (kept(work) for work in works)
    assert ones == others
    assert len(table(works[0], "row")) == len(ones)
    expected = components(texts, at)
    # Texts without a difference in their runs are one node, so their component is that of either.
    assert all(len(part & ones) == 1 for part in expected)
    for work in works:
        assert len(texts) == len(table(work, "row")) + len(table(work, "dropped"))


@settings(max_examples=25, deadline=None)
@given(QUESTIONS, st.sampled_from([0.3, 0.6, 0.9]))
def test_no_two_that_stay_are_alike_and_each_link_is_what_is_said(
    texts: list[str], at: float
) -> None:
    work = run_split(near(at=at, text=Minhash(words=2)), texts, [], 1)
    for one, other in combinations(kept(work), 2):
        assert jaccard(one, other) < at
    rows = {f"1-{place}": text for place, text in enumerate(_shuffled(texts))}
    for line in table(work, "verdict"):
        if not line["ok"]:
            via = line["reason"].split()[2].rstrip(",")
            assert line["score"] == pytest.approx(jaccard(rows[line["row"]], rows[via]), abs=1e-6)


def _shuffled(texts: Sequence[str]) -> list[str]:
    found = [*texts]
    random.Random(1).shuffle(found)
    return found


@given(
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30, unique=True),
    st.randoms(use_true_random=False),
)
def test_clusters_of_edges_in_any_order(edges: list[tuple[int, int]], order: random.Random) -> None:
    edges = [*{(min(pair), max(pair)) for pair in edges if pair[0] != pair[1]}]
    found = _clusters(edges)
    order.shuffle(edges)
    again = _clusters(edges)
    for name in ("stays", "via", "like"):
        assert getattr(found, name).tolist() == getattr(again, name).tolist()
    for node, stays in enumerate(found.stays.tolist()):
        assert stays <= node
        assert found.stays[found.via[node]] == stays


def _clusters(edges: list[tuple[int, int]]) -> Any:
    ends = np.array(edges, np.int64).reshape(-1, 2)
    return clusters(12, ends[:, 0], ends[:, 1], ends.sum(axis=1) / 100)


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("num_hashes", [64, 128, 256])
def test_bands_find_what_they_promise(at: float, num_hashes: int) -> None:
    assert chance(at, rows_of_band(at, num_hashes), num_hashes) >= 0.999


def test_words_of_real_questions_as_by_comparing_all(shared_data: Path) -> None:
    lines = (shared_data / "mawps/train.jsonl").read_text().splitlines()[:400]
    texts = [_text(json.loads(line)) for line in lines]
    work = run_split(near(at=0.6), texts, [100, 250], 3)
    runs = {text: set(word_runs(text, 3)) for text in texts}
    linked = [
        {one, other}
        for one, other in combinations(runs, 2)
        if len(runs[one] & runs[other]) / len(runs[one] | runs[other]) >= 0.6
    ]
    assert linked, "the set has near duplicates"
    stays = kept(work)
    assert not [pair for pair in linked if pair <= stays]
    assert stays >= set(texts) - set().union(*linked)


def _text(line: dict[str, Any]) -> str:
    return next(str(value) for value in line.values() if isinstance(value, str) and " " in value)


# ---- images ------------------------------------------------------------------------------------


def drawn(seed: int, size: int = 96) -> Image.Image:
    """A picture with structure: a few random boxes."""
    chance = np.random.default_rng(seed)
    pixels = np.full((size, size, 3), 255, np.uint8)
    for _ in range(6):
        top, left = chance.integers(0, size - 16, 2)
        high, wide = chance.integers(12, size // 2, 2)
        pixels[top : top + high, left : left + wide] = chance.integers(0, 255, 3)
    return Image.fromarray(pixels)


def stored(state: Path, image: Image.Image, **how: Any) -> str:
    import io

    out = io.BytesIO()
    image.save(out, **how)
    return ImageStore(state).put(out.getvalue())


def pictures(folder: Path) -> dict[str, str]:
    """Two pictures, and the first again smaller and compressed."""
    first = drawn(1)
    return {
        "one": stored(folder, first, format="PNG"),
        "small": stored(folder, first.resize((64, 64)), format="PNG"),
        "jpeg": stored(folder, first, format="JPEG", quality=60),
        "two": stored(folder, drawn(2), format="PNG"),
    }


def state_of(tmp_path: Path) -> Path:
    """Where ``work_order`` has a run's state."""
    spec = Filter(name="distinct", seed=7, rows="raw", unique=near())
    return Path(work_order(spec, tmp_path / "probe", {"raw": []}).state).relative_to(
        tmp_path / "probe"
    )


def test_an_image_scaled_or_compressed_again_is_found(tmp_path: Path) -> None:
    found = pictures(tmp_path / state_of(tmp_path))
    rows = [asked(name, "q", images=[digest]) for name, digest in found.items()]
    work = filtered(tmp_path, near("images", at=0.9), rows)
    stays = {line["id"] for line in table(work, "row")}
    assert "two" in stays
    assert len(stays) == 2


def test_texts_and_images_both_count(tmp_path: Path) -> None:
    found = pictures(tmp_path / state_of(tmp_path))
    rows = [
        asked("a", TIN, images=[found["one"]]),
        asked("b", TIN, images=[found["jpeg"]]),
        asked("c", TIN, images=[found["two"]]),
        asked("d", "What else is there to see?", images=[found["one"]]),
        asked("e", TIN, images=[found["one"], found["two"]]),
        asked("f", TIN, images=[]),
        asked("g", TIN, images=None),
    ]
    work = filtered(tmp_path, near("question", "images", at=0.9), rows)
    groups = {frozenset((line["child"], line["parent"])) for line in table(work, "edge")}
    assert groups == {frozenset("ab"), frozenset("fg")}


def test_on_average_one_column_may_lack_a_little(tmp_path: Path) -> None:
    found = pictures(tmp_path / state_of(tmp_path))
    rows = [
        asked("a", TIN, images=[found["one"]]),
        asked("b", f"{TIN} now", images=[found["one"]]),
    ]
    for at, across, num in ((0.94, "each", 2), (0.94, "mean", 1), (0.98, "mean", 2)):
        spec = Filter(
            name="distinct",
            seed=7,
            rows="raw",
            unique=near("question", "images", at=at, across=across),
        )
        work = work_order(spec, tmp_path, {"raw": rows})
        work = work.model_copy(update={"out": str(tmp_path / f"{across}-{at}")})
        filter_stage.run(work)
        assert len(table(work, "row")) == num


@given(st.integers(0, 2**64 - 1), st.sets(st.integers(0, 63), max_size=12), st.integers(4, 16))
def test_pigeonholes_miss_no_pair_of_hashes(bits: int, flipped: set[int], most: int) -> None:
    """Two hashes that differ in at most d bits have one of d + 1 parts in common."""
    other = bits
    for place in flipped:
        other ^= 1 << place
    measure = Pictures(Phash(), lambda digest: Image.new("RGB", (8, 8)))
    forms = [value.to_bytes(8, "big") for value in (bits, other)]
    lengths = np.array([8, 8])
    bands = list(measure._bands(forms, lengths, 1 - most / 64))  # type: ignore[arg-type]
    meets = any(keys[0] == keys[1] for _, _, keys in bands)
    assert meets or len(flipped) > most


# ---- encoders ----------------------------------------------------------------------------------


def static_vectors(folder: Path) -> Path:
    """Word vectors of a small vocabulary as model2vec saves them: "car" and "auto" next to each other."""
    from model2vec import StaticModel
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["[UNK]", "the", "red", "car", "auto", "moon"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    vectors = np.eye(6, 6, dtype=np.float32)
    vectors[4] = vectors[3] + 0.05
    StaticModel(vectors, tokenizer).save_pretrained(folder)
    return folder


def test_static_word_vectors_from_a_folder(tmp_path: Path) -> None:
    folder = static_vectors(tmp_path / "vectors")
    model = Model(name="vectors", source=FolderModel(path=str(folder)))
    rows = [
        asked(str(i), text)
        for i, text in enumerate(["the red car", "the red auto", "the red moon"])
    ]
    work = filtered(tmp_path, near(at=0.95, text=model), rows)
    assert [sorted((e["child"], e["parent"])) for e in table(work, "edge")] == [["0", "1"]]


def test_a_folder_without_a_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    model = Model(name="vectors", source=FolderModel(path=str(tmp_path / "empty")))
    with pytest.raises(Exception, match=r"config\.json is missing"):
        filtered(tmp_path, near(text=model), [asked("a", TIN)])


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "rensa", None)
    monkeypatch.delitem(sys.modules, "omr_runtime.near.words", raising=False)
    with pytest.raises(Exception, match=r"omrlang\[near\]"):
        filtered(tmp_path, near(), [asked("a", TIN)])


@pytest.mark.slow
def test_images_through_a_vision_tower(tmp_path: Path) -> None:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8,
    )  # fmt: skip
    CLIPVisionModel(config).save_pretrained(tmp_path / "tower")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(tmp_path / "tower")
    state = tmp_path / state_of(tmp_path)
    found = pictures(state)
    encode = encoders.image_encoder(tmp_path / "tower", ImageStore(state).open)
    one, small, two = (encode((found[name],)) for name in ("one", "small", "two"))
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    assert one @ small > one @ two


# ---- mixes -------------------------------------------------------------------------------------


def mixed(folder: Path, parts: dict[str, list[dict[str, Any]]], spec: Mix) -> Work:
    work = work_order(spec, folder, parts)
    mix_stage.run(work)
    return work


@pytest.mark.parametrize("turned", [False, True])
def test_a_mix_drops_near_duplicates_whatever_the_order_of_its_parts(
    tmp_path: Path, turned: bool
) -> None:
    parts = {
        "left": [asked(f"l{n}", f"{TIN} of the kind {n}") for n in range(6)],
        "right": [asked(f"r{n}", f"{TIN} of the kind {n}!") for n in range(3)]
        + [asked("other", "What is the area of a circle?")],
    }
    names = [*parts][::-1] if turned else [*parts]
    work = mixed(tmp_path, parts, mix("m", names, unique=near(at=0.95).model_dump()))
    asked_for = {line["question"].rstrip("!") for line in table(work, "row")}
    assert len(asked_for) == len(table(work, "row")) == 7
    assert len(table(work, "edge")) == 3
    ok = Counter(line["ok"] for line in table(work, "verdict"))
    assert ok == {True: 7, False: 3}
    stays = {line["id"] for line in table(work, "row")}
    assert {line["parent"] for line in table(work, "edge")} <= stays


def test_amounts_are_taken_of_what_is_left(tmp_path: Path) -> None:
    parts = {"a": [asked(f"{n}", f"{TIN} {n % 2}") for n in range(8)]}
    unique = near(at=1.0).model_dump()
    work = mixed(tmp_path, parts, mix("m", {"a": Count(n=2)}, unique=unique))
    assert len(table(work, "row")) == 2
    with pytest.raises(Exception, match="2 of them no duplicates"):
        mixed(tmp_path / "more", parts, mix("m", {"a": Count(n=3)}, unique=unique))
