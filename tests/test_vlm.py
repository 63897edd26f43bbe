"""A real model judges: tiny, random, opened from its folder; what it sees, its probabilities, folders that are none."""

import json

import pytest
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from apexgen.evaluate.interview import count_unanswered, interview
from apexgen.evaluate.judge import Chance, Inquiry
from apexgen.evaluate.vlm import open_vlm
from stub_server import COLORS, inquiries
from vlms import build_vlm

CONSOLE = Console(quiet=True)


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    return open_vlm(str(build_vlm(tmp_path_factory.mktemp("vlm") / "tiny-llava")))


def test_a_model_sees_and_says_the_same_again(vlm):
    red, blue = (Image.new("RGB", (40, 24), COLORS[color]) for color in ("red", "blue"))
    assert vlm.ask(red, "two rings", "") == vlm.ask(red, "two rings", "")
    assert vlm.ask(red, "two rings", "") != vlm.ask(blue, "two rings", "")
    assert vlm.ask(red, "two rings", "") != vlm.ask(red, "two rings", "be strict")
    assert vlm.name == "tiny-llava" and vlm.settings()["backend"] == "transformers"


def test_a_models_probabilities_are_its_next_tokens(vlm):
    picture, tokens = Image.new("RGB", (40, 24), COLORS["green"]), vlm.processor.tokenizer
    every = [tokens.decode([i]) for i in range(len(tokens))]
    whole = [word for i, word in enumerate(every) if tokens.encode(word, add_special_tokens=False) == [i]]
    chances = [vlm.chance(picture, "two rings", (word,)) for word in whole[:20]]
    together = vlm.chance(picture, "two rings", tuple(whole[:20]))
    assert together == pytest.approx(sum(chances), rel=1e-4) and 0 < together < 1
    assert vlm.chance(picture, "two rings", (whole[0], whole[0])) == pytest.approx(chances[0])


def test_a_model_that_knows_no_form_is_unanswered(vlm, tmp_path):
    asked = inquiries(tmp_path, 1)
    answers = interview(vlm, asked, tmp_path / "log", CONSOLE)
    assert count_unanswered(answers, CONSOLE) == 3 and all(answer.said for answer in answers)
    [answer] = interview(vlm, [Inquiry("c", asked[0].view, "?", Chance(("yes",)))], tmp_path / "log", CONSOLE)
    assert 0 <= answer.value <= 1


def test_folders_without_a_judge_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"lacks config\.json, .* or: hf download Qwen/"):
        open_vlm(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"lacks preprocessor_config\.json, tokenizer_config\.json, tokenizer\.json; "):
        open_vlm(str(tmp_path))
    for name in ("processor_config.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match="to which all words are one"):
        open_vlm(str(tmp_path))
    (tmp_path / "vocab.txt").write_text("[UNK]\ndog\ncat\n")
    with pytest.raises(ValueError, match="has no chat template") as refused:
        open_vlm(str(tmp_path))
    assert "\n" not in str(refused.value)


def test_a_judge_whose_weights_are_not_whole_is_refused(tmp_path):
    folder = build_vlm(tmp_path / "tiny-llava")
    file = folder / "model.safetensors"
    weights, whole = load_file(file), file.read_bytes()
    save_file({name: tensor for name, tensor in weights.items() if "q_proj" not in name}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks .*q_proj.* and \d+ more weights"):
        open_vlm(str(folder))
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="can't be opened") as refused:
        open_vlm(str(folder))
    assert "\n" not in str(refused.value)
