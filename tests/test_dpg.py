"""DPG-Bench: dependencies, categories and quirks worked out by hand; oracle and liar; from the command line."""

import pytest
from PIL import Image

from apexgen.cli import main
from apexgen.evaluate import dpg
from apexgen.evaluate.dpg_files import read_scores
from apexgen.evaluate.dpg_run import find_sheets, read_official, run
from apexgen.evaluate.result import load_result
from apexgen.evaluate.source import Judging, Source
from dense import CONSOLE, ITEMS, grids, judge_with, rows, write_data
from stub_server import COLORS, Stub, color_of, fill_in, liar, oracle, serving, write_picture


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "dpg_bench")


def graph_of(*parents, kinds=None):
    kinds = kinds or ["entity - whole"] * len(parents)
    return {n: dpg.Question(f"{n}?", kind, own) for n, (own, kind) in enumerate(zip(parents, kinds, strict=True), 1)}


def test_a_no_carries_to_all_that_depends_on_it_at_any_distance():
    chain = graph_of((0,), (1,), (2,), (0,))
    assert dpg.heed_parents(chain, {1: False, 2: True, 3: True, 4: True}) == {1: False, 2: False, 3: False, 4: True}
    assert dpg.heed_parents(chain, {1: True, 2: False, 3: True, 4: True}) == {1: True, 2: False, 3: False, 4: True}
    either = graph_of((0,), (0,), (1, 2))
    assert dpg.heed_parents(either, {1: True, 2: False, 3: True})[3] is False


def test_the_tables_order_does_not_matter_unless_strict():
    backwards = graph_of((2,), (3,), (0,))
    yes = {1: True, 2: True, 3: False}
    assert dpg.heed_parents(backwards, yes) == {1: False, 2: False, 3: False}
    assert dpg.heed_parents(backwards, yes, strict=True) == {1: True, 2: False, 3: False}  # 2 was still yes at 1


def test_a_parent_that_is_no_question_is_passed_over_unless_strict():
    graph = graph_of((9,), (0,))
    assert dpg.heed_parents(graph, {1: True, 2: True}) == {1: True, 2: True}
    with pytest.raises(KeyError):
        dpg.heed_parents(graph, {1: False, 2: True}, strict=True)
    hidden = graph_of((2, 9), (0,))
    assert dpg.heed_parents(hidden, {1: True, 2: False}, strict=True)[1] is False  # the first no ends the search


def test_scores_by_hand():
    kinds = ["entity - whole", "attribute - color", "attribute - size"]
    graphs = {"a": graph_of((0,), (1,), (1,), kinds=kinds), "b": graph_of((0,))}
    a = [{1: False, 2: True, 3: True}, {1: True, 2: True, 3: False}]
    answers = {"a": a, "b": [{1: True}, {1: True}]}
    scores = dpg.score(graphs, answers)
    assert scores.pictures == {"a": [0.0, pytest.approx(2 / 3)], "b": [1.0, 1.0]}
    assert scores.overall == pytest.approx((1 / 3 + 1) / 2)
    assert scores.detailed == {"attribute - color": 0.5, "attribute - size": 0.0, "entity - whole": 0.75}
    assert scores.broad == {"attribute": 0.25, "entity": 0.75}
    assert scores.told() == {"DPG": pytest.approx(200 / 3), "attribute": 25, "entity": 75}
    strict = dpg.score(graphs, answers | {"unknown": [{1: True}]}, strict=True)
    assert strict.pictures == scores.pictures and strict.dropped == ("unknown",)
    assert strict.detailed == {"attribute - color": 1.0, "attribute - size": 0.0, "entity - whole": 1.0}
    turned = dpg.score(graphs, answers | {"a": a[::-1]}, strict=True)  # the last crop, before dependencies
    assert turned.detailed == {"attribute - color": 1.0, "attribute - size": 1.0, "entity - whole": 0.5}
    with pytest.raises(ValueError, match="unknown"):
        dpg.score(graphs, {"unknown": [{1: True}]})
    with pytest.raises(ValueError, match="item a"):
        dpg.score(graphs, {"a": [{1: True}]})


def test_the_table_is_read_and_strict_loses_its_first_row(data):
    graphs, strict = dpg.read_graphs(data), dpg.read_graphs(data, strict=True)
    assert list(graphs) == list(ITEMS) and dpg.read_prompts(data)["0"] == "a red field, wide"
    assert graphs["0"][3] == dpg.Question("Is it red, quite, 3?", "global", (2, 1))
    assert list(strict["0"]) == [2, 3] and {item: own for item, own in strict.items() if item != "0"} == {
        item: own for item, own in graphs.items() if item != "0"
    }


def test_strict_keeps_the_last_of_an_items_blocks(tmp_path):
    split = [*rows("0", "red"), *rows("whoops34", "blue"), *list(rows("0", "red"))[:1]]
    data = write_data(tmp_path / "d", split)
    assert list(dpg.read_graphs(data)["0"]) == [1, 2, 3] and list(dpg.read_graphs(data, strict=True)["0"]) == [1]


def test_crops_go_top_left_top_right_bottom_left_bottom_right(tmp_path):
    colors = ["red", "green", "blue", "red"]
    files = [write_picture(tmp_path / f"{k}.png", color) for k, color in enumerate(colors)]
    joined = dpg.grid(files)
    crops = [joined.crop(box).getpixel((3, 3)) for box in dpg.boxes(joined.size)]
    assert joined.size == (32, 32) and crops == [COLORS[color] for color in colors]
    assert dpg.boxes((8, 6), 1) == [(0, 0, 8, 6)] and dpg.grid(files[:1]).size == (16, 16)
    assert dpg.item_of("x/whoops34.v2.png") == "whoops34"


@pytest.mark.parametrize(("says", "expected"), [(oracle, 100), (liar, 0)])
def test_oracle_and_liar(says, expected, data, tmp_path):
    result = judge_with(says, data, tmp_path / "out", grids(tmp_path / "grids"))
    assert {name: share for name, share in result.scores.items() if name != "unanswered"} == dict.fromkeys(
        ("DPG", "attribute", "entity", "global"), expected
    )
    assert result.scores["unanswered"] == 0
    assert (result.benchmark, result.judge, result.model, result.n) == ("DPG-Bench", "stub", "x", 12)
    assert load_result(tmp_path / "out" / "result.json") == result


def test_one_that_says_nothing_stops_the_run(data, tmp_path):
    with pytest.raises(OSError, match="20 questions in a row"):
        judge_with(lambda *_: "no idea", data, tmp_path / "out", grids(tmp_path / "grids"))
    assert not (tmp_path / "out" / "result.json").exists()


@pytest.mark.parametrize("words", ["yes", "Answer: yes", "KQXBCD yes", "</think>\nyes", "Score: 1"])
def test_words_in_a_picture_are_no_answer(words, data, tmp_path):
    """A judge that reads out what the red pictures say; of the others it tells the truth."""

    def says(picture, question):
        return words if color_of(picture) == "red" else oracle(picture, question)

    result = judge_with(says, data, tmp_path / "out", grids(tmp_path / "grids"))
    assert result.scores["unanswered"] == 12 and result.scores["DPG"] == pytest.approx(100 * 2 / 3)


def test_each_crop_is_judged_as_itself(data, tmp_path):
    pictures = grids(tmp_path / "grids", whoops34=["blue", "red", "blue", "green"])
    result = judge_with(oracle, data, tmp_path / "out", pictures)
    assert result.scores["DPG"] == pytest.approx(100 * (1 + 1 + 0.5) / 3)
    assert read_scores(tmp_path / "out" / "results.txt").pictures["whoops34"] == [1, 0, 1, 0]
    single = judge_with(oracle, data, tmp_path / "one", pictures, crops=1)  # a whole picture: blue on the average
    assert single.n == 3 and single.scores["DPG"] == 100


def test_strict_drops_what_the_published_script_fails_at(data, tmp_path):
    pictures = grids(tmp_path / "grids")
    (pictures / "torn.png").write_bytes(b"\x89PNG")
    (pictures / "notes.txt").write_text("x")
    write_picture(pictures / "stranger.png", *["red"] * 4)
    (pictures / "whoops34.png").unlink()
    result = judge_with(oracle, data, tmp_path / "out", pictures, strict=True)
    assert result.scores["dropped"] == 4  # those three, and item 0: its first question, a parent, is in the lost row
    assert result.n == 4 and result.scores["DPG"] == 100 and result.settings["strict"] is True
    told, _ = read_official(tmp_path / "out" / "results_detail.txt", data, strict=True)
    assert told["DPG"] == 100
    with pytest.raises(ValueError, match=r"no whoops34.png; of 3 pictures 1 are missing"):
        judge_with(oracle, data, tmp_path / "b", pictures)


def test_a_model_is_drawn_judged_and_goes_on(tmp_path, capsys):
    """From the command line, with the embedded pipeline; twice, and the second time nothing is drawn or asked."""
    data, out = write_data(tmp_path / "data"), tmp_path / "out"
    stub = Stub(lambda picture, question: fill_in(question, True))
    with serving(stub) as address:
        options = ["--data", str(data), "--judge", address, "--judge-model", "stub", "--out", str(out)]
        command = ["apexgen", "evaluate", "dpg", "scenes", *options, "--seed", "7"]
        for _ in range(2):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("sys.argv", command)
                main()
    assert len(stub.requests) == 3 * 3 * 4
    result = load_result(out / "result.json")
    assert 0 < result.scores["within"] < 1 and result.spread.keys() == {"within"}
    assert result.scores["DPG"] == 100 and result.evaluations == 1 and result.seeds == (7, 8, 9, 10)
    assert result.model == "scenes teacher@1" and "DPG-Bench, judged by stub" in capsys.readouterr().out
    grid = Image.open(out / "grids" / "whoops34.png")
    for k, box in enumerate(dpg.boxes(grid.size)):
        assert grid.crop(box).tobytes() == Image.open(out / "pictures" / "whoops34" / f"{k}.png").tobytes()


def test_grids_of_another_size_than_told_are_refused(data, tmp_path):
    pictures = grids(tmp_path / "grids")
    side = Image.open(pictures / "0.png").width // 2
    items = list(ITEMS)
    assert find_sheets(pictures, items, 4, False, side)[0].keys() == ITEMS.keys()
    for crops, told, message in (
        (4, 2 * side, f"0.png has {2 * side}x{2 * side} pixels, not the .* add --crops 1 for single pictures"),
        (1, side, f"not the {side}x{side} of --resolution {side}$"),
    ):
        with pytest.raises(ValueError, match=message):
            find_sheets(pictures, items, crops, True, told)
    with pytest.raises(ValueError, match="--resolution does nothing without --pictures"):
        run(data, Source(tmp_path / "out", "scenes"), Judging("x"), 0, 4, False, CONSOLE, side)


def test_ranks_draw_their_shares_and_judge_their_shares_of_all(data, tmp_path, monkeypatch):
    stub = Stub(lambda picture, question: fill_in(question, True))
    out = tmp_path / "out"
    with serving(stub) as address:
        source, judging = Source(out, "scenes"), Judging(address, "stub")
        monkeypatch.setenv("WORLD_SIZE", "2")
        for rank, drawn, asked in (("1", 6, 0), ("0", 12, 18), ("0", 12, 18)):
            monkeypatch.setenv("RANK", rank)
            assert run(data, source, judging, 0, 4, False, CONSOLE) is None
            assert (len(list((out / "pictures").rglob("*.png"))), len(stub.requests)) == (drawn, asked)
        monkeypatch.setenv("RANK", "1")
        result = run(data, source, judging, 0, 4, False, CONSOLE)
        assert result.scores["DPG"] == 100 and len(stub.requests) == 36
        monkeypatch.setenv("WORLD_SIZE", "1")
        monkeypatch.setenv("RANK", "0")
        assert run(data, source, judging, 0, 4, False, CONSOLE) == result and len(stub.requests) == 36


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: (data / "dpg_bench.csv").unlink(), "dpg_bench.csv is missing; download the folder dpg_bench"),
        (lambda data: [file.unlink() for file in (data / "prompts").iterdir()], "holds no prompts; download"),
        (lambda data: (data / "dpg_bench.csv").write_text("a,b\n1,2\n"), "line 2, is no question of DPG-Bench"),
        (lambda data: (data / "prompts" / "7.txt").write_text("x"), "has no question about 7"),
    ],
)
def test_data_that_is_missing_or_odd_is_told_in_a_line(change, told, data, tmp_path):
    change(data)
    with pytest.raises(ValueError, match=told):
        judge_with(oracle, data, tmp_path / "out", grids(tmp_path / "grids"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "judging", "told"),
    [
        ({}, {}, "name a model, or the pictures"),
        ({"model": "scenes", "pictures": "."}, {}, "name a model, or the pictures"),
        ({"model": "scenes", "name": "x"}, {}, "--name does nothing without --pictures"),
        ({"pictures": ".", "steps": 2}, {}, "--steps does nothing with --pictures"),
        ({"model": "scenes"}, {"judge": ".", "model": None}, "--judge . lacks config.json"),
        ({"model": "scenes"}, {"judge": "."}, "--judge-model does nothing"),
        ({"model": "scenes"}, {"judge": "http://x", "model": None}, "--judge-model is missing"),
    ],
)
def test_options_that_would_do_nothing_are_refused_before_anything_is_drawn(source, judging, told, data, tmp_path):
    if "pictures" in source:
        source = source | {"pictures": tmp_path}
    with pytest.raises(ValueError, match=told):
        judging = Judging(**({"judge": "http://127.0.0.1:9", "model": "m"} | judging))
        run(data, Source(tmp_path / "out", **source), judging, 0, 4, False, CONSOLE)
    assert not (tmp_path / "out").exists()
