"""Prompts to messages and tokens, responses to thinking and answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from tokenizers.processors import TemplateProcessing

from omr_runtime import chat
from omr_runtime.chat import UnusableRow, parse_response, response_text
from omr_runtime.errors import RunError
from omr_runtime.models import Loaded, load_tokenizer, materialise
from omrlang.types import Col, Fresh, Model, Prompt, RowExpr, Rule

SHORT = Prompt(name="short")
ANSWER_ONLY = Prompt(name="plain", thinking=None)
REPAIRED = Prompt(name="repaired", repair=True)
ROW = {"id": "r1", "question": "How many red?", "options": None, "images": None}
OPTIONS = ROW | {"question": "Which one?", "options": ["a cat", "a dog"]}


def fresh(family: str, state: Path) -> Loaded:
    source = Fresh.model_validate(
        {
            "family": family,
            "layers": 1,
            "hidden": 32,
            "heads": 2,
            "vision_layers": 1,
            "vision_hidden": 32,
        }
    )
    return load_tokenizer(materialise(Model(name="m", source=source, precision="fp32"), state))


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return fresh("qwen2_5_vl", tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return fresh("qwen2", tmp_path_factory.mktemp("text"))


def placeholder(loaded: Loaded) -> int:
    assert loaded.image_token_id is not None
    return loaded.image_token_id


def mapped(column: str) -> RowExpr:
    tree = Col(name=column)
    return RowExpr(text=column, type="text", tree=tree, rules=(Rule(name=column, tree=tree),))


# ---- what the model is asked -----------------------------------------------------------------------------------


def test_options_follow_the_question_with_letters() -> None:
    assert chat.user_text(OPTIONS, SHORT) == "Which one?\nA. a cat\nB. a dog"


def test_the_prompt_can_map_the_row_to_the_users_turn() -> None:
    prompt = SHORT.model_copy(update={"user": mapped("answer")})
    assert chat.user_text(ROW | {"answer": "say 4"}, prompt) == "say 4"
    with pytest.raises(UnusableRow, match="row r1: the prompt short gives no text"):
        chat.user_text(ROW | {"answer": None}, prompt)


def test_system_turn_first_and_images_before_the_text() -> None:
    prompt = SHORT.model_copy(update={"system": "Be brief."})
    turns = chat.messages(ROW | {"images": ["d1", "d2"]}, prompt)
    assert turns[0] == {"role": "system", "content": "Be brief."}
    assert [part["type"] for part in turns[1]["content"]] == ["image", "image", "text"]
    assert chat.messages(ROW, prompt)[1]["content"] == "How many red?"


def test_the_label_changes_with_what_is_shown_and_with_the_format_only() -> None:
    label = chat.prompt_label(SHORT)
    assert label.startswith("short:")
    assert chat.prompt_label(SHORT.model_copy(update={"system": "x"})) != label
    assert chat.prompt_label(SHORT.model_copy(update={"answer": "final"})) != label


# ---- what the model sees ---------------------------------------------------------------------------------------


def test_text_is_encoded_as_the_template_writes_it(text: Loaded) -> None:
    made = chat.encode_prompt(text, ROW, SHORT)
    assert made.unexpanded_text == (
        "<|im_start|>user\nHow many red?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert text.tokenizer.decode(made.input_ids) == made.unexpanded_text
    assert made.images is None


def test_each_placeholder_becomes_as_many_tokens_as_its_image_has(vision: Loaded) -> None:
    row = ROW | {"images": ["d1", "d2"]}
    images = [Image.new("RGB", (84, 84), "red"), Image.new("RGB", (56, 112), "blue")]
    made = chat.encode_prompt(vision, row, SHORT, images)
    assert made.images is not None
    assert made.images["image_grid_thw"].tolist() == [[1, 6, 6], [1, 8, 4]]
    assert made.input_ids.count(placeholder(vision)) == 9 + 8
    assert made.images["pixel_values"].shape[0] == 36 + 32
    assert made.unexpanded_text.count("<|image_pad|>") == 2


def test_pixel_bounds_scale_the_image(vision: Loaded) -> None:
    row = ROW | {"images": ["d1"]}
    image = [Image.new("RGB", (280, 280))]
    small = chat.encode_prompt(vision, row, SHORT, image, max_pixels=84 * 84)
    large = chat.encode_prompt(vision, row, SHORT, image, min_pixels=560 * 560)
    assert small.input_ids.count(placeholder(vision)) == 9
    assert large.input_ids.count(placeholder(vision)) == 400
    assert vision.image_processor is not None
    bounds = vision.image_processor.size
    assert bounds["longest_edge"] > 84 * 84, "the bounds of one call do not stay in the processor"


def test_a_picture_in_the_palette_mode_is_read(vision: Loaded) -> None:
    made = chat.encode_prompt(vision, ROW | {"images": ["d"]}, SHORT, [Image.new("P", (84, 84))])
    assert made.input_ids.count(placeholder(vision)) == 9


def test_a_question_that_holds_a_placeholder_is_refused_alone(vision: Loaded) -> None:
    row = ROW | {"images": ["d"], "question": "What is <|image_pad|>?"}
    with pytest.raises(UnusableRow, match="2 image placeholders for 1 images"):
        chat.encode_prompt(vision, row, SHORT, [Image.new("RGB", (84, 84))])


def test_a_question_without_an_image_may_not_hold_a_placeholder_either(vision: Loaded) -> None:
    """Packed beside a row with an image, it would be taken for a part of that image."""
    with pytest.raises(UnusableRow, match="1 image placeholders for 0 images"):
        chat.encode_prompt(vision, ROW | {"question": "What is <|image_pad|>?"}, SHORT)


def test_the_token_that_begins_a_text_is_there_once(tmp_path: Path) -> None:
    """LLaVA's chat template leaves it to the tokenizer, Gemma's writes it."""
    loaded = fresh("llava", tmp_path)
    tokenizer, begin = loaded.tokenizer, "<|endoftext|>"
    tokenizer.bos_token = begin
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.bos_token_id)]
    )
    written = tokenizer.chat_template
    for template in (written, begin + written):
        tokenizer.chat_template = template
        ids = chat.encode_prompt(loaded, ROW, SHORT).input_ids
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1


def test_a_template_that_reads_parts_alone_gets_parts(tmp_path: Path) -> None:
    """As that of LLaVA 1.5 is published: of a turn that is a plain string it would write nothing."""
    loaded = fresh("llava", tmp_path)
    loaded.tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'].upper() }}: "
        "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
        "{{ content['text'] }}{% endfor %}{% endfor %}"
    )
    assert chat.render(loaded, ROW, SHORT) == "USER: How many red?"


def test_a_chat_template_beside_the_tokenizer_is_found(tmp_path: Path) -> None:
    folder = fresh("llava", tmp_path).folder
    written = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    assert load_tokenizer(folder).tokenizer.chat_template is None
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": written}))
    assert load_tokenizer(folder).tokenizer.chat_template == written


def test_images_for_a_text_model_end_the_stage(text: Loaded) -> None:
    with pytest.raises(RunError, match="text model cannot read row r1"):
        chat.encode_prompt(text, ROW | {"images": ["d"]}, SHORT, [Image.new("RGB", (84, 84))])


# ---- what the model wrote --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "ok", "thinking", "answer"),
    [
        ("<think>a b</think><answer>2</answer>", True, "a b", "2"),
        ("\n<think>a</think>\n <answer> 2 </answer>\n\n", True, "a", "2"),
        ("<think></think><answer>2</answer>", True, "", "2"),
        ("<think>a</think><answer>2</answer><answer>3</answer>", False, "a", "3"),
        ("<think>a</think><answer>2</answer> so 2", False, "a", "2"),
        ("so <think>a</think><answer>2</answer>", False, "a", "2"),
        ("<think>a<answer>2</answer>", False, None, "2"),
        ("<think>a</think>2", False, "a", None),
        ("<think>a</think><answer></answer>", False, "a", ""),
        ("<think>a</think><answer>2", False, "a", None),
        ("<answer>2</answer><think>a</think>", False, "a", "2"),
        ("a</think><answer>2</answer>", False, None, "2"),
        ("<think>x <think>y</think><answer>2</answer>", False, "x <think>y", "2"),
        ("", False, None, None),
    ],
)
def test_responses_are_read_by_the_format(
    response: str, ok: bool, thinking: str | None, answer: str | None
) -> None:
    parsed = parse_response(response, SHORT)
    assert (parsed.format_ok, parsed.thinking, parsed.final_answer) == (ok, thinking, answer)


def test_a_format_without_thinking() -> None:
    assert parse_response("<answer>2</answer>", ANSWER_ONLY).format_ok
    assert not parse_response("<think>a</think><answer>2</answer>", ANSWER_ONLY).format_ok


def test_repair_puts_the_opening_tag_back() -> None:
    parsed = parse_response("a</think><answer>2</answer>", REPAIRED)
    assert (parsed.format_ok, parsed.thinking) == (True, "a")


def test_what_a_row_teaches() -> None:
    steps = {"thinking": "1 + 1 = 2", "answer": "2"}
    assert response_text(steps, SHORT) == "<think>1 + 1 = 2</think><answer>2</answer>"
    assert response_text({"answer": "2"}, SHORT) == "<think></think><answer>2</answer>"
    assert response_text(steps, ANSWER_ONLY) == "<answer>2</answer>"
    assert response_text({"response": "just 2", "answer": "2"}, SHORT) == "just 2"
    with pytest.raises(UnusableRow, match="no response and no answer"):
        response_text({"id": "r"}, SHORT)
