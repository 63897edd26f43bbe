"""CLIP score by hand, what is no CLIP, and which scores share a table."""

import json
from functools import partial

import pytest
import torch
from PIL import Image
from rich.console import Console
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from apexgen.backbones.diffusion import open_text_encoder
from apexgen.cli import main
from apexgen.drawer import open_model
from apexgen.evaluate.clip import clip_scores, encode_texts, open_clip
from apexgen.evaluate.collection import find_pictures
from apexgen.evaluate.features import pixels
from apexgen.evaluate.protocols import judge_diversity
from apexgen.evaluate.result import by_protocol, load_result
from apexgen.evaluate.weights import open_judge, open_processor
from vision import clip_folder, pictures

QUIET = Console(quiet=True)


def test_clip_score_is_a_hundred_cosines_by_hand(tmp_path):
    from transformers import CLIPModel

    folder = clip_folder(tmp_path / "clip")
    files = find_pictures(pictures(tmp_path / "a", 3)).files
    prompts = ["a red ring", "a photo of two circles", "a " * 40 + "cut"]
    scores, cut = clip_scores(files, prompts, folder, tmp_path / "cache", QUIET)
    network, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    for file, prompt, score in zip(files, prompts, scores, strict=True):
        ids = tokenizer(prompt).input_ids
        ids = [*ids[:23], ids[-1]] if len(ids) > 24 else ids  # the end-of-text token stays
        given = processor(images=Image.open(file), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            said = network(input_ids=torch.tensor([ids]), pixel_values=given)
        cosine = float(said.image_embeds @ said.text_embeds.T)
        assert float(score) == pytest.approx(max(100 * cosine, 0), abs=1e-3)
    assert cut == 1


def test_a_clip_without_its_words_is_refused_and_a_vocabulary_with_merges_is_one(tmp_path):
    folder = clip_folder(tmp_path / "clip")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"--clip .* lacks tokenizer\.json; put all of it there"):
        open_clip(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary["vocab"]))
    with pytest.raises(ValueError, match=r"lacks tokenizer\.json"):
        open_clip(folder)
    (folder / "merges.txt").write_text("#version: 0.2\n")
    texts, _ = encode_texts(["a dog", "a cat"], folder)
    assert not torch.equal(texts[0], texts[1])


def test_code_of_a_folder_is_not_run_whatever_is_answered(tmp_path, monkeypatch):
    folder, ran = clip_folder(tmp_path / "clip"), tmp_path / "ran"
    (folder / "payload.py").write_text(f"open({str(ran)!r}, 'w')\nclass Odd: pass\n")
    odd = {"model_type": "odd", "image_processor_type": "Odd"}
    auto = dict.fromkeys(("AutoConfig", "AutoModel", "AutoImageProcessor"), "payload.Odd")
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | odd | {"auto_map": auto}))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    for opened in (partial(open_judge, AutoModel, device="cpu"), partial(open_processor, AutoImageProcessor)):
        with pytest.raises(ValueError, match=r"clip can't be opened: .*custom code") as caught:
            opened(folder=folder)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"clip can't be opened: .*custom code"):
        open_text_encoder(folder, "AutoModel")
    assert not ran.exists()


def test_clip_knows_the_prompts_from_their_contrary(tmp_path):
    """Prompts that a picture was drawn from, as this CLIP sees it, score what they can; others less, none below 0."""
    folder = clip_folder(tmp_path / "clip")
    files = find_pictures(pictures(tmp_path / "a", 12)).files
    words = [f"a {color} {thing}" for color in ("red", "blue", "green") for thing in ("ring", "circle", "square")]
    asked = [(file, word) for file in files for word in words]
    scores, _ = clip_scores(*zip(*asked, strict=True), folder, tmp_path / "cache", QUIET)
    table = scores.view(len(files), len(words))
    truth, lie = ([words[index] for index in chosen] for chosen in (table.argmax(1), table.argmin(1)))
    oracle, liar = (clip_scores(files, prompts, folder, tmp_path / "cache", QUIET)[0] for prompts in (truth, lie))
    torch.testing.assert_close(oracle, table.max(1).values)
    torch.testing.assert_close(liar, table.min(1).values)
    assert (oracle >= liar).all() and (scores >= 0).all() and (scores == 0).any()


def test_clip_scores_of_the_same_prompts_share_a_table_and_others_do_not(tmp_path, monkeypatch, capsys):
    clip, results = clip_folder(tmp_path / "clip"), []
    for name, steps, prompts in (("a", 1, ["a red ring"]), ("b", 2, ["a red ring"]), ("c", 1, ["two blue circles"])):
        out, drawer = tmp_path / name, open_model("scenes").drawer(steps)
        [varied] = judge_diversity(drawer, prompts, 2, pixels(), tmp_path / "cache", out, QUIET)
        command = [
            "evaluate",
            "clip",
            out,
            "--clip",
            clip,
            "--cache",
            tmp_path / "cache",
            "--out",
            tmp_path / f"{name}-r",
        ]
        monkeypatch.setattr("sys.argv", ["apexgen", *map(str, command)])
        main()
        results.append((load_result(tmp_path / f"{name}-r" / "clip-score.json"), varied))
    for judged in zip(*results, strict=True):
        assert [len(group) for group in by_protocol(judged)] == [2, 1]
