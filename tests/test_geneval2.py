"""GenEval 2: spellings and means by hand, official files, oracle, liar, and a real model's probabilities."""

import json
import math

import pytest
from PIL import Image
from rich.console import Console

from apexgen.evaluate import geneval2
from apexgen.evaluate.geneval2_run import read_official, run
from apexgen.evaluate.judge import NoAnswer
from apexgen.evaluate.official import import_official
from apexgen.evaluate.source import Judging, Source
from stub_server import Stub, color_of, endpoint, serving, write_picture
from vlms import build_vlm

CONSOLE = Console(quiet=True)
PROMPTS = [
    ("two red fields", 3, [("How many fields, red?", "two", "count"), ("Is it red?", "Yes", "attribute")]),
    ("a blue field", 1, [("Is it blue?", "Yes", "attribute")]),
]


def write_data(folder):
    folder.mkdir(parents=True)
    lines = [
        {"prompt": text, "atom_count": atoms, "vqa_list": [[q, a] for q, a, _ in own], "skills": [s for *_, s in own]}
        for text, atoms, own in PROMPTS
    ]
    (folder / "geneval2_data.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder


def pictures(folder):
    write_picture(folder / "00000.png", "red")
    write_picture(folder / "00001.png", "blue")
    return folder


def chances(good):
    """A model that gives all of its probability to the truth, or to the contrary."""

    def told(picture, question):
        right = (color_of(picture) in question) == good
        if "How many" in question:
            return {"two": 0.5, " 2": 0.25, "Two": 0.25} if right else {"three": 1.0}
        return {"Yes": 0.75, " yes": 0.25} if right else {"No": 1.0}

    return told


def judge_with(told, tmp_path, strict=False, where=None):
    data = tmp_path / "data"
    if not data.is_dir():
        write_data(data)
    where = where or pictures(tmp_path / "pictures")
    stub = Stub(lambda *_: "Yes", told)
    with serving(stub) as address:
        source = Source(tmp_path / "out", pictures=where, name="x")
        return run(data, source, Judging(address, "stub"), 0, strict, CONSOLE), stub


def test_spellings_are_the_official_ones():
    assert set(geneval2.spellings("How many cows?", "three")) == {"three", "Three", " three", " Three", "3", " 3"}
    assert set(geneval2.spellings("Are there cows?", "Yes")) == {"Yes", "yes", " Yes", " yes"}
    assert geneval2.wording("Are there cows?") == "Are there cows? Answer in one word."


def test_scores_by_hand(tmp_path):
    prompts = geneval2.read_prompts(write_data(tmp_path / "data"))
    scores = geneval2.score(prompts, [[0.25, 1.0], [0.5]])
    assert scores == pytest.approx({"AM": 56.25, "GM": 50, "attribute": 75, "count": 25})
    assert geneval2.by_atoms(prompts, [[0.25, 1.0], [0.0]]) == pytest.approx({1: 0, 3: 50})
    assert geneval2.score(prompts, [[0.0, 1.0], [1.0]])["GM"] == 50
    for wrong in ([[1.0], [1.0]], [[1.0, 1.1], [1.0]], [[1.0, math.nan], [1.0]]):
        with pytest.raises(ValueError, match="needs"):
            geneval2.score(prompts, wrong)


@pytest.mark.parametrize(("good", "expected"), [(True, 100), (False, 0)])
def test_oracle_and_liar(good, expected, tmp_path):
    result, _ = judge_with(chances(good), tmp_path)
    assert result.scores == pytest.approx(
        {"AM": expected, "GM": expected, "attribute": expected, "count": expected, "unanswered": 0}
    )
    assert result.benchmark == "GenEval 2" and result.n == 2


def test_a_question_is_put_as_published_where_strict_and_with_a_caution_otherwise(tmp_path):
    for strict in (False, True):
        _, stub = judge_with(chances(True), tmp_path, strict)
        asked = {body["messages"][-1]["content"][-1]["text"] for body in stub.requests}
        plain = {geneval2.wording(question) for *_, own in PROMPTS for question, *_ in own}
        assert asked == plain if strict else all(any(text.endswith(p) and text != p for p in plain) for text in asked)
        assert all(body["max_tokens"] == 1 and body["top_logprobs"] == 20 for body in stub.requests)


def test_official_files_go_out_and_come_in_again(tmp_path):
    result, _ = judge_with(chances(True), tmp_path)
    out = tmp_path / "out"
    images = json.loads((out / "images.json").read_text())
    assert json.loads((out / "by_atoms.json").read_text()) == pytest.approx({"1": 100, "3": 100})
    assert images == {"two red fields": str(tmp_path / "pictures/00000.png"), "a blue field": images["a blue field"]}
    assert json.loads((out / "score_lists.json").read_text()) == [[pytest.approx(1), pytest.approx(1)], [1.0]]
    assert read_official(out / "score_lists.json", tmp_path / "data")[0] == pytest.approx(
        {name: share for name, share in result.scores.items() if name != "unanswered"}
    )
    swapped = {"a blue field": images["two red fields"], "two red fields": images["a blue field"]}
    (out / "images.json").write_text(json.dumps(swapped))
    again, _ = judge_with(chances(True), tmp_path, where=out / "images.json")
    assert again.scores["AM"] == 0
    (out / "s.json").write_text("[[1.0000000660129942, 0.5], [0.0]]")
    imported = import_official("geneval2", out / "s.json", tmp_path / "data", False, "y", "q", tmp_path / "y.json")
    assert imported.scores["AM"] == 37.5 and imported.scores["GM"] == pytest.approx(50 * math.sqrt(0.5))
    with pytest.raises(ValueError, match="has 1 prompts and the data 2"):
        (out / "s.json").write_text("[[1.0]]")
        read_official(out / "s.json", tmp_path / "data")


def test_a_server_without_probabilities_is_refused_in_a_line(tmp_path):
    with pytest.raises(ValueError, match="tells no probabilities"):
        judge_with(None, tmp_path)
    assert not (tmp_path / "out" / "result.json").exists()


REFUSAL = {"message": {"content": None, "refusal": "I can't"}, "finish_reason": "content_filter", "logprobs": None}


@pytest.mark.parametrize("refusal", [REFUSAL, {"message": {"content": None, "refusal": "I can't"}}])
def test_a_refusal_costs_its_question_and_not_the_run(refusal, tmp_path):
    """Whether it comes without probabilities or with those of what it would have said."""
    stub = Stub(lambda picture, question: refusal if "Is it red?" in question else "Yes", chances(True))
    where, data = pictures(tmp_path / "pictures"), write_data(tmp_path / "data")
    with serving(stub) as address:
        for _ in range(2):
            result = run(
                data, Source(tmp_path / "out", pictures=where, name="x"), Judging(address, "stub"), 0, False, CONSOLE
            )
            assert result.scores["unanswered"] == 1 and result.scores["AM"] == pytest.approx(75)


def test_a_question_without_probabilities_is_unanswered_once_the_judge_has_told_some(tmp_path):
    silent = {"message": {"content": "Yes"}, "logprobs": None}

    def says(picture, question):
        right = {token: math.log(chance) for token, chance in chances(True)(picture, question).items()}
        told = [{"token": token, "logprob": logprob} for token, logprob in right.items()]
        spoken = {"message": {"content": "Yes"}, "logprobs": {"content": [{"token": "Yes", "top_logprobs": told}]}}
        return silent if "blue" in question else spoken

    where, data = pictures(tmp_path / "pictures"), write_data(tmp_path / "data")
    with serving(Stub(says)) as address:
        judging = Judging(address, "stub", workers=1)
        result = run(data, Source(tmp_path / "out", pictures=where, name="x"), judging, 0, False, CONSOLE)
    assert result.scores["unanswered"] == 1 and result.scores["AM"] == pytest.approx(50)


@pytest.mark.parametrize("logprob", [1e9, 5.0, math.nan])
def test_a_probability_that_is_none_is_no_answer(logprob, tmp_path):
    told = [{"token": "Yes", "logprob": logprob}]
    choice = {"message": {"content": "Yes"}, "logprobs": {"content": [{"token": "Yes", "top_logprobs": told}]}}
    with serving(Stub(lambda *_: choice)) as address, pytest.raises(NoAnswer, match="probabilities that are none"):
        endpoint(address).chance(Image.new("RGB", (8, 8)), "?", ("Yes",))


def test_a_model_of_this_machine_judges(tmp_path):
    folder = build_vlm(tmp_path / "tiny-llava")
    source = Source(tmp_path / "out", pictures=pictures(tmp_path / "pictures"), name="x")
    data = write_data(tmp_path / "data")
    first = run(data, source, Judging(str(folder)), 0, False, CONSOLE)
    (tmp_path / "out" / "answers.jsonl").unlink()
    again = run(data, source, Judging(str(folder)), 0, False, CONSOLE)
    assert first == again and 0 < first.scores["AM"] < 100 and 0 < first.scores["GM"] <= first.scores["AM"]
    assert first.judge == "tiny-llava" and first.settings["backend"] == "transformers"


def test_data_that_is_missing_or_odd_is_told_in_a_line(tmp_path):
    with pytest.raises(ValueError, match=r"has no geneval2_data\.jsonl; download geneval2_data\.jsonl from github"):
        geneval2.read_prompts(tmp_path)
    with pytest.raises(ValueError, match=r"nowhere: no such file; download geneval2_data\.jsonl from github"):
        geneval2.read_prompts(tmp_path / "nowhere")
    (tmp_path / "geneval2_data.jsonl").write_text(
        '{"prompt": "x", "atom_count": 1, "vqa_list": [["a", "b"]], "skills": []}'
    )
    with pytest.raises(ValueError, match="line 1, is no prompt of GenEval 2"):
        geneval2.read_prompts(tmp_path)
    with pytest.raises(ValueError, match="--strict-official does nothing"):
        import_official("geneval2", tmp_path, tmp_path, True, "x", "y", tmp_path / "z")
    with pytest.raises(ValueError, match="--data is missing"):
        import_official("geneval2", tmp_path, None, False, "x", "y", tmp_path / "z")
