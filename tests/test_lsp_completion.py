"""Completion as somebody types: what is offered where, and what is put in its place. Driven by a real client over standard input and output."""

from __future__ import annotations

from pathlib import Path

import pytest
from lsprotocol import types as lsp

from tests.editor import RECIPE, Editor, applied, editor


@pytest.mark.parametrize(
    ("typed", "offered", "not_offered"),
    [
        pytest.param("sam|", "source sample eval model use let budget", "temperature", id="kinds"),
        pytest.param("filter x fr|", "from on", "with", id="clauses of the kind"),
        pytest.param("filter x from traces |", "on", "from with", id="clauses not given yet"),
        pytest.param("use std.|", "models gpus formats", "traces", id="modules of the library"),
        pytest.param("use |", "std.models", "traces", id="modules with their library"),
        pytest.param("allow W|", "W101 W104", "E101", id="codes of warnings"),
        pytest.param("filter x from |", "puzzles traces accepted", "teacher", id="rows"),
        pytest.param("sample x from puzzles with |", "teacher models.qwen2_5_1_5b", "traces", id="models"),
        pytest.param("sample x from puzzles with models.|", "qwen2_5_1_5b", "teacher", id="after a dot"),
        pytest.param("sft x from traces with models.q|", "qwen2_5_1_5b", "traces", id="typed name"),
        pytest.param("source x from |", "jsonl hf synthetic", "puzzles", id="places"),
        pytest.param("mix x from [|", "puzzles traces", "teacher all", id="parts of a mix"),
        pytest.param("mix x from [puzzles: |", "all up_to times", "puzzles", id="amounts"),
        pytest.param("model x = |", "hf folder fresh teacher", "puzzles", id="what a model is made of"),
        pytest.param("model x = fresh(\"qwen2\", |", "layers hidden family", "gpu", id="arguments"),
        pytest.param("model x = fresh(family = |", "qwen2 qwen2_5_vl", "layers", id="words of an argument"),
        pytest.param("sample x from puzzles {\n  te|", "temperature n prompt top_p", "keep", id="keys"),
        pytest.param(
            "sample x from puzzles {\n  n = 1\n  |\n  top_p = 1.0\n}", "temperature", "n top_p", id="keys not given, before and behind"
        ),
        pytest.param("sft x from traces {\n  steps = 9\n  |\n}", "pack", "steps epochs", id="exactly one of"),
        pytest.param("sft x from traces { checkpoint { |", "every keep", "pack", id="keys of a group"),
        pytest.param("sft x from traces { checkpoint.|", "every keep", "pack", id="dotted keys"),
        pytest.param("sft x from traces { precision = |", "bf16 fp32", "true", id="choices"),
        pytest.param("sft x from traces { recompute = |", "true false", "bf16", id="truths"),
        pytest.param("sft x from traces { lr = |", "cosine constant linear", "zero", id="calls"),
        pytest.param("sft x from traces { lr = cosine(1e-5, |", "warmup floor", "betas", id="arguments by name"),
        pytest.param("sft x from traces { lr = cosine(1e-5, warmup = 25 |", "steps", "tokens", id="units"),
        pytest.param("sft x from traces { batch = 1 |", "packs rows", "tokens", id="units of an amount"),
        pytest.param("sample x from puzzles { prompt = |", "formats.think_answer", "teacher", id="prompts"),
        pytest.param("rl x from puzzles { algorithm = g|", "gspo grpo dr_grpo dapo", "cosine", id="algorithms"),
        pytest.param("filter x from traces { keep = |", "response answer_matches judge len length", "teacher", id="row"),
        pytest.param("filter x from puzzles { keep = a|", "answer", "response", id="columns of this stage"),
        pytest.param("filter x from traces { keep = answer |", "and or matches", "answer", id="operators"),
        pytest.param("sample x from puzzles { until = 2 of (|", "answer_matches response", "teacher", id="within until"),
        pytest.param("filter x from traces { keep = judge(|", "teacher question sees", "puzzles", id="judges"),
        pytest.param("filter x from traces { keep = judge(teacher, sees = |", "response", "teacher", id="a judge's words"),
        pytest.param("filter x from traces { keep = pass_rate(|", "accepted", "teacher traces", id="filters"),
        pytest.param("filter x from traces { keep = seen_in(|", "puzzles n", "question teacher", id="row sets"),
        pytest.param("filter x from traces { expect = |", "rows kept", "steps length accuracy", id="numbers of a stage"),
        pytest.param("mix x from [puzzles: all] { expect = rows > 3 and share(|", "puzzles", "rows teacher", id="parts"),
        pytest.param("source x from synthetic(\"shapes\") { columns { |", "question answer", "id", id="mapped columns"),
        pytest.param("source x from synthetic(\"shapes\", n = 1, seed = 1) { columns { answer = |", "thinking", "response", id="raw columns"),
        pytest.param("let x = teacher.|", "precision vision", "traces", id="parts of a thing"),
        pytest.param("filter x from traces { unique = |", "near none", "exact", id="words and calls"),
        pytest.param("filter x from traces { unique = near(|", "question response at text", "teacher", id="columns of a call"),
        pytest.param("filter x from traces { unique = near(question, |", "images at across", "teacher", id="all of its columns"),
        pytest.param("filter x from traces { unique = near(question, text = |", "minhash teacher", "phash question", id="calls and models"),
        pytest.param("mix x from [puzzles: all] { unique = |", "exact near none", "teacher", id="words and calls of a mix"),
        pytest.param("budget { |", "p50 p90", "n", id="limits"),
        pytest.param("sample x from puzzles { n = |", "sweep unpublished", "default", id="instead of a value"),
        pytest.param("# sam|", "", "sample", id="nothing in a comment"),
        pytest.param("let x = \"sam|", "", "sample", id="nothing in a text"),
    ],
)  # fmt: skip
def test_completion(ide: Editor, typed: str, offered: str, not_offered: str) -> None:
    """In a file whose last statement is being typed, so that it cannot be read."""
    found = ide.completions(RECIPE + "\n" + typed)
    assert set(offered.split()) <= set(found)
    assert not set(not_offered.split()) & set(found)


def test_completion_of_paths(ide: Editor) -> None:
    (ide.folder / "base.omr").write_text(RECIPE)
    (ide.folder / "train.jsonl").write_text("{}")
    assert set(ide.completions('amend "|')) == {"base.omr"}
    assert set(ide.completions('use "ba|')) == {"base.omr"}
    found = ide.completions('source x from jsonl("./train.js|')
    assert "train.jsonl" in found
    written = applied('source x from jsonl("./train.js', [found["train.jsonl"].text_edit])
    assert written == 'source x from jsonl("./train.jsonl'
    assert ide.completions('let x = "|') == {}


def test_completion_in_an_amending_file(ide: Editor) -> None:
    (ide.folder / "base.omr").write_text(RECIPE)
    head = 'amend "base.omr"\nbecause "why"\n\n'
    assert {"traces", "accepted", "sample"} <= set(ide.completions(head + "tra|"))
    assert {"with", "on", "from"} <= set(ide.completions(head + "traces |"))
    keys = ide.completions(head + "traces {\n  n = 4\n  |\n}")
    assert "max_tokens" in keys
    assert not {"n", "keep"} & set(keys)
    assert "default" in ide.completions(head + "traces { top_p = |")
    assert "answer_matches" in ide.completions(head + "accepted { keep = |")
    assert "`tokens`" in ide.hover(head + "traces { max_tok|ens = 9 }")


def test_completion_of_keys_tells_what_they_are(ide: Editor) -> None:
    found = ide.completions("sample x from y {\n  |\n}")
    item = found["max_tokens"]
    assert item.detail == "whole number · tokens · at least 1 · required"
    assert "longest response" in item.documentation.value
    assert "class `rows`" in item.documentation.value
    assert found["top_p"].detail.endswith("default 1")
    required = [item.label for item in sorted(found.values(), key=lambda item: item.sort_text)]
    assert set(required[:4]) == {"temperature", "n", "prompt", "max_tokens"}


def test_completion_replaces_what_is_typed(ide: Editor) -> None:
    text = RECIPE + '\n# 😀 é\nfilter x from traces { keep = "😀" == answ|'
    item = ide.completions(text)["answer_matches"]
    written = applied(text.replace("|", ""), [item.text_edit])
    assert written.endswith('"😀" == answer_matches')


def test_snippet_of_a_kind_has_what_it_needs(ide: Editor) -> None:
    item = ide.completions("sam|")["sample"]
    assert item.insert_text_format == lsp.InsertTextFormat.Snippet
    assert item.text_edit.new_text.startswith("sample ${1:name} from ${2} with ${3} {\n")
    assert "max_tokens = " in item.text_edit.new_text


def test_no_snippets_for_an_editor_without(tmp_path: Path) -> None:
    with editor(tmp_path, "neovim@v0.6.1") as ide:
        item = ide.completions("sam|")["sample"]
        plain = ide.client.capabilities.text_document.completion.completion_item.snippet_support
        assert not plain
        assert item.text_edit.new_text == "sample"
