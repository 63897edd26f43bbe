"""Results of folders of pictures: the cache, categories, diversity, MJHQ-30K from end to end."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from apexgen.cli import main
from apexgen.drawer import open_model
from apexgen.evaluate import collection
from apexgen.evaluate.collection import features_of, find_pictures, prompts_of
from apexgen.evaluate.features import Extractor, pixels
from apexgen.evaluate.mjhq import jobs, read_mjhq
from apexgen.evaluate.protocols import Judges, judge_diversity, judge_mjhq
from apexgen.evaluate.result import load_result, table
from apexgen.evaluate.statistics import distances, prompt_fit
from apexgen.evaluate.variety import variety
from vision import clip_folder, dino_folder, pictures

QUIET = Console(quiet=True)


def counting(weights="", stop_at=None):
    """Three means of a picture as its features; and how many pictures were looked at."""
    seen = []

    def run(images):
        if stop_at is not None and len(seen) >= stop_at:
            raise KeyboardInterrupt
        seen.extend(images)
        return torch.stack([torch.from_numpy(np.asarray(image).mean(axis=(0, 1))) for image in images])

    return Extractor("means", weights, "none", run), seen


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(collection, "SHARD", 4)


def test_features_are_computed_once_and_again_for_what_changed(tmp_path, small_shards):
    files = find_pictures(pictures(tmp_path / "a", 10)).files
    extractor, seen = counting()
    first = features_of(files, extractor, tmp_path / "cache", QUIET, "")
    assert len(seen) == 10 and len(list((tmp_path / "cache").glob("*.safetensors"))) == 3
    assert torch.equal(features_of(files, extractor, tmp_path / "cache", QUIET, ""), first) and len(seen) == 10
    Image.new("RGB", (20, 20), "red").save(files[5])
    changed = features_of(files, extractor, tmp_path / "cache", QUIET, "")
    assert len(seen) == 14  # its shard
    assert changed[5].tolist() == [255, 0, 0] and torch.equal(changed[:5], first[:5])
    features_of(files, counting("other")[0], tmp_path / "cache", QUIET, "")
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 7
    moved = tmp_path / "a" / "elsewhere.png"
    files[9].rename(moved)
    features_of([*files[:9], moved], extractor, tmp_path / "cache", QUIET, "")
    assert len(seen) == 14  # contents count, not names


def test_a_stopped_run_goes_on_and_damage_is_mended(tmp_path, small_shards):
    files = find_pictures(pictures(tmp_path / "a", 10)).files
    extractor, seen = counting(stop_at=8)
    with pytest.raises(KeyboardInterrupt):
        features_of(files, extractor, tmp_path / "cache", QUIET, "", batch=2)
    assert len(seen) == 8
    rest, others = counting()
    whole = features_of(files, rest, tmp_path / "cache", QUIET, "", batch=2)
    assert len(others) == 2 and not list((tmp_path / "cache").glob(".partial*"))
    kept = sorted((tmp_path / "cache").glob("*.safetensors"))
    kept[0].write_bytes(kept[0].read_bytes()[:40])
    assert torch.equal(features_of(files, rest, tmp_path / "cache", QUIET, ""), whole)
    assert load_file(kept[0])["features"].shape[1] == 3


def test_features_that_are_not_finite_are_named(tmp_path):
    files = find_pictures(pictures(tmp_path / "a", 3)).files
    bad = Extractor("bad", "", "", lambda images: torch.tensor([[1.0], [float("nan")], [2.0]]))
    with pytest.raises(ValueError, match=r"001\.png: its features are not finite"):
        features_of(files, bad, tmp_path / "cache", QUIET, "")
    assert not list((tmp_path / "cache").iterdir())


def two_collections(root):
    for name, count, shade in (("art", 9, 0.3), ("food", 7, 0.7)):
        pictures(root / "true" / name, count, seed=1, shade=shade)
        pictures(root / "drawn" / name, count - 2, seed=2, shade=shade + 0.05)
    pictures(root / "true" / "logo", 3)
    return root / "true", root / "drawn"


def test_a_category_scores_as_it_would_alone_and_what_is_judged_is_recorded(tmp_path):
    true, drawn = two_collections(tmp_path)
    extractor, cache = counting()[0], tmp_path / "cache"
    frechet, kernel = distances("x", find_pictures(true), find_pictures(drawn), extractor, cache, QUIET, seed=3)
    assert list(frechet.scores) == ["all", "art", "food"]
    for name in ("art", "food"):
        alone = distances("x", find_pictures(true / name), find_pictures(drawn / name), extractor, cache, QUIET, seed=3)
        assert alone[0].scores["all"] == pytest.approx(frechet.scores[name], rel=1e-9)
        assert alone[1].scores["all"] == pytest.approx(kernel.scores[name], rel=1e-9)
    assert frechet.n == 12 and frechet.settings["reference_n"] == 19
    assert frechet.settings["implementation"].startswith("torchmetrics") and frechet.settings["resize"] == "none"
    assert kernel.settings["seed"] == 3 and kernel.settings["subset"] == 12
    console = Console(width=160)
    with console.capture() as said:
        console.print(table([frechet]))
    assert "FID is biased at small n (all 12, art 7, food 5)" in said.get() and frechet.notes
    assert frechet.counts == kernel.counts == {"all": 12, "art": 7, "food": 5}


def test_a_category_of_few_pictures_is_told_though_all_are_enough(tmp_path, monkeypatch):
    true, drawn = two_collections(tmp_path)
    monkeypatch.setattr("apexgen.evaluate.distances.FEW", 6)
    frechet, _ = distances("x", find_pictures(true), find_pictures(drawn), counting()[0], tmp_path / "c", QUIET)
    assert frechet.notes[0].startswith("FID is biased at small n (food 5)")


def test_kid_says_how_many_subsets_it_is_of(tmp_path):
    true, drawn = pictures(tmp_path / "true", 9, seed=1), pictures(tmp_path / "drawn", 9, seed=2)
    whole, larger = find_pictures(true), find_pictures(pictures(tmp_path / "more", 12, seed=3))
    _, once = distances("x", whole, find_pictures(drawn), counting()[0], tmp_path / "c", QUIET)
    assert (once.settings["subsets"], once.settings["subset"]) == (1, 9) and not once.spread and not once.notes
    _, often = distances("x", larger, find_pictures(drawn), counting()[0], tmp_path / "c", QUIET)
    assert (often.settings["subsets"], often.settings["subset"]) == (100, 9) and often.spread["all"] > 0


def test_the_reference_is_known_by_its_contents(tmp_path):
    true, drawn = two_collections(tmp_path)
    before, after = [], []
    for told in (before, after):
        told += distances("x", find_pictures(true), find_pictures(drawn), counting()[0], tmp_path / "c", QUIET)
        Image.new("RGB", (30, 30), "blue").save(true / "art" / "000.png")
    assert before[0].settings["reference"] != after[0].settings["reference"]
    assert before[0].scores["food"] == after[0].scores["food"] and before[0].scores["art"] != after[0].scores["art"]


def test_the_reference_itself_has_no_distance_and_other_pictures_have(tmp_path):
    true = find_pictures(pictures(tmp_path / "true", 40, seed=1))
    copied, far = pictures(tmp_path / "copy", 40, seed=1), pictures(tmp_path / "far", 40, seed=2, shade=0.9)
    told = [
        distances("x", true, find_pictures(folder), counting()[0], tmp_path / "c", QUIET) for folder in (copied, far)
    ]
    (oracle_fid, oracle_kid), (liar_fid, liar_kid) = ([result.scores["all"] for result in results] for results in told)
    assert oracle_fid == pytest.approx(0, abs=1e-6) and liar_fid > 100
    assert oracle_kid <= 0 < liar_kid


def test_variety_of_known_features():
    line = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0], [1.0, 2.0]])
    found = variety(line, ["a", "a", "b", "b"], "rms")
    assert found.within == pytest.approx((5 + 2) / 2 / 2**0.5) and found.prompts == 2
    assert found.between == pytest.approx(1 / 2**0.5) and found.error == pytest.approx(1.5 / 2**0.5)
    turned = torch.tensor([[1.0, 0.0], [0.0, 5.0], [-2.0, 0.0], [4.0, 0.0]])
    assert variety(turned, ["a"] * 4, "cosine").within == pytest.approx((1 + 2 + 0 + 1 + 1 + 2) / 6)
    collapsed = variety(line[[0, 0, 1, 1]], ["a", "a", "b", "b"], "rms")
    assert collapsed.within == 0 < collapsed.between
    with pytest.raises(ValueError, match="write --seeds 4"):
        variety(line, ["a", "b", "c", "d"], "rms")


def test_diversity_is_told_by_pixels_without_weights_and_prompts_are_in_the_pictures(tmp_path):
    drawer = open_model("scenes").drawer(1)
    prompts = ["a red ring", "two blue circles"]
    [result] = judge_diversity(drawer, prompts, 3, pixels(), tmp_path / "cache", tmp_path / "out", QUIET)
    assert result.n == 6 and result.seeds == (0, 1, 2) and result.settings["distance"] == "rms"
    assert 0 < result.scores["within"] and result.evaluations == 1
    assert load_result(tmp_path / "out" / "diversity.json") == result
    assert prompts_of(find_pictures(tmp_path / "out")) == [prompt for prompt in prompts for _ in range(3)]


def mjhq_folder(folder):
    table = {
        f"{category}{number}": {"prompt": f"a {color} ring", "category": category}
        for category, color in (("art", "red"), ("food", "blue"))
        for number in range(3)
    }
    (folder / "mjhq30k_imgs").mkdir(parents=True)
    (folder / "meta_data.json").write_text(json.dumps(table))
    for name, told in table.items():
        made = pictures(folder / "raw" / name, 1, seed=len(name) + ord(name[-1]))
        (folder / "mjhq30k_imgs" / told["category"]).mkdir(exist_ok=True)
        Image.open(made / "000.png").save(folder / "mjhq30k_imgs" / told["category"] / f"{name}.jpg")
    return folder


def test_mjhq_goes_from_prompts_to_results_and_goes_on(tmp_path):
    data, clip = mjhq_folder(tmp_path / "data"), clip_folder(tmp_path / "clip")
    out, drawer = tmp_path / "out", open_model("scenes").drawer(1)
    judges = Judges.open(clip, None, clip, tmp_path / "cache", seed=5)
    results = judge_mjhq(drawer, data, judges, None, out, QUIET)
    assert [result.benchmark for result in results] == ["MJHQ-30K FID", "MJHQ-30K KID x 1000", "MJHQ-30K CLIP score"]
    assert all(list(result.scores) == ["all", "art", "food"] and result.n == 6 for result in results)
    assert results[2].settings["scale"] == "max(100 cos, 0)" and results[2].judge.startswith("clip clip (")
    assert {file.name for file in out.glob("*.json")} >= {"fid.json", "kid-x-1000.json", "clip-score.json"}
    assert Image.open(out / "food" / "food2.png").info["seed"] == "10"  # 5 + its place in the file
    (out / "art" / "art1.png").unlink()
    again = judge_mjhq(drawer, data, judges, None, out, QUIET)
    assert [result.scores for result in again] == [result.scores for result in results]
    fit = prompt_fit("MJHQ-30K", find_pictures(out), prompts_of(find_pictures(out)), clip, tmp_path / "cache", QUIET)
    assert fit.scores == results[2].scores and fit.seeds == (5, 6, 7, 8, 9, 10)
    for result in (*results, fit):  # what a reader needs to compare it
        assert result.n == 6 and result.seeds and {"implementation", "resize", "weights"} <= result.settings.keys()
    few = judge_mjhq(drawer, data, Judges(judges.extractor, None, judges.cache, 5), 2, out, QUIET)
    assert few[0].n == 4 and few[0].settings["reference_n"] == 6


def test_seeds_do_not_depend_on_the_limit(tmp_path):
    entries = read_mjhq(mjhq_folder(tmp_path / "data"))
    every = {job.path: job for job in jobs(entries, 7)}
    assert all(every[job.path] == job for job in jobs(entries, 7, 2)) and len(jobs(entries, 7, 2)) == 4


META = {
    "has no meta_data.json; download": None,
    "is broken: JSONDecodeError": "{",
    "is no plain name": '{"../a": {"prompt": "x", "category": "art"}}',
    "'a/b' is no plain name": '{"a": {"prompt": "x", "category": "a/b"}}',
    "is broken: KeyError 'category'": '{"a": {"prompt": "x"}}',
    "the prompt of a is no text": '{"a": {"prompt": 3, "category": "art"}}',
    "is empty": "{}",
}


@pytest.mark.parametrize("message", META)
def test_a_broken_data_set_costs_one_line(tmp_path, message):
    if META[message] is not None:
        (tmp_path / "meta_data.json").write_text(META[message])
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as caught:
        read_mjhq(tmp_path)
    assert "\n" not in str(caught.value)


MISTAKES = {
    "download https://github.com/mseitzer/pytorch-fid": ["mjhq", "scenes", "--data", "new"],
    "--features missing.pth: no such file": ["fid", "PICTURES", "PICTURES", "--features", "missing.pth"],
    "--data new has no meta_data.json": ["mjhq", "scenes", "--data", "new", "--clip", "CLIP"],
    "--resize is of FID's Inception": ["mjhq", "scenes", "--data", "new", "--clip", "CLIP", "--resize", "clean-fid"],
    "--clip missing: no such folder; run: hf download openai/clip": ["clip", "DRAWN", "--clip", "missing"],
    "000.png does not hold its prompt": ["clip", "PICTURES", "--clip", "CLIP"],
    "missing: no such folder of pictures": ["fid", "missing", "missing", "--features", "CLIP"],
    "is no clip but a dinov2model": ["clip", "DRAWN", "--clip", "DINO", "--cache", "CACHE"],
    "--prompts missing: no such file": ["diversity", "scenes", "--prompts", "missing"],
    "'--repeats': input should be greater than or equal to 3": ["timing", "scenes", "--repeats", "2"],
    "'--warmup': input should be greater than or equal to 1": ["timing", "scenes", "--warmup", "0"],
    "--steps 0: write numbers": ["sweep", "scenes", "--steps", "0"],
}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    from apexgen.evaluate.gallery import Job, write_picture

    root = tmp_path_factory.mktemp("material")
    for number in range(2):
        job = Job(f"{number}.png", "a red ring", number)
        write_picture(root / "drawn" / job.path, np.zeros((32, 32, 3), np.float32), job)
    dino = dino_folder(root / "dino")
    for file in (clip_folder(root / "clip")).glob("tokenizer*"):
        (dino / file.name).write_bytes(file.read_bytes())
    return {
        "CLIP": root / "clip",
        "DINO": dino,
        "DRAWN": root / "drawn",
        "PICTURES": pictures(root / "plain", 2),
        "CACHE": root / "cache",
    }


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_costs_one_line_and_leaves_nothing(capsys, monkeypatch, tmp_path, material, message):
    monkeypatch.chdir(tmp_path)
    arguments = [str(material.get(word, word)) for word in MISTAKES[message]]
    monkeypatch.setattr(sys, "argv", ["apexgen", "evaluate", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message.lower() in error.lower() and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
