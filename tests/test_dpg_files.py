"""DPG-Bench's official result files, out and in again, and those of the published script."""

import pytest

from apexgen.cli import main
from apexgen.evaluate import dpg
from apexgen.evaluate.dpg_files import detail_of, read_detail, read_scores, write_scores
from apexgen.evaluate.dpg_run import read_official
from apexgen.evaluate.result import load_result
from dense import ITEMS, grids, judge_with, write_data
from stub_server import oracle


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "dpg_bench")


def test_official_files_go_out_and_come_in_again(data, tmp_path):
    pictures, out = grids(tmp_path / "grids", **{"0": ["red", "red", "red", "blue"]}), tmp_path / "out"
    result = judge_with(oracle, data, out, pictures)
    file = out / "results.txt"
    told, n = read_official(file, data, strict=False)
    assert n == result.n and told == pytest.approx(result.scores)
    assert read_official(detail_of(file), data, strict=False) == (pytest.approx(result.scores), 12)
    first = detail_of(file).read_text().splitlines()[0]
    assert first == f"{pictures / '0.png'}, (0, 0, 16, 16), Is it red, quite, 1?, yes"
    assert file.read_text().splitlines()[0] == f"{pictures / '0.png'}, 1.0, 1.0, 1.0, 0.0, 0.75"
    again = tmp_path / "again.txt"
    write_scores(again, "grids", pictures, read_scores(file))
    assert read_scores(again) == read_scores(file)
    with pytest.raises(ValueError, match="its DPG-Bench score is 90"):
        again.write_text(file.read_text().replace("DPG-Bench score: 91.6", "DPG-Bench score: 90.0000"))
        read_scores(again)
    with pytest.raises(ValueError, match="line 1, is no answer"):
        read_detail(file, dpg.read_graphs(data))


def test_a_file_of_the_published_script_lacks_the_first_row_and_comes_in_with_its_quirks(tmp_path, monkeypatch, capsys):
    plain = [(1, "0"), (2, "1"), (3, "0")]
    table = [[item, "", "", n, "0" if item == "0" else parents, "", "", "entity - whole (x)", f"Is it {item} {n}?"]
             for item in ITEMS for n, parents in plain]  # fmt: skip
    data = write_data(tmp_path / "data", table)
    lines = [f"grids/{item}.png, (0, 0, 8, 8), Is it {item} {n}?, {'no' if n == 3 else 'yes'}"
             for item in ITEMS for n, _ in plain]  # fmt: skip
    file = tmp_path / "res_detail.txt"
    file.write_text("\n".join(lines[1:]) + "\n")

    def bring(*options):
        told = ["--name", "sd3", "--judge", "mplug", "--out", str(tmp_path / "r.json")]
        monkeypatch.setattr("sys.argv", ["apexgen", "evaluate", "import-judged", "dpg", *map(str, options), *told])
        main()
        return load_result(tmp_path / "r.json")

    with pytest.raises(SystemExit) as stop:
        bring(file, "--data", data)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and "item 0" in said and "add --strict-official" in said
    result = bring(file, "--data", data, "--strict-official")
    assert result.scores["DPG"] == pytest.approx(100 * (1 / 2 + 2 / 3 + 2 / 3) / 3) and result.scores["dropped"] == 0
    assert result.settings["strict"] is True
    scores = dpg.Scores({"0": [1.0, 0.0]}, {"entity": 0.5}, {"entity - whole": 0.5})
    write_scores(tmp_path / "res.txt", "sd3", tmp_path, scores)
    assert bring(tmp_path / "res.txt").settings["strict"] is None  # who can tell


def test_an_answer_is_all_that_follows_its_question_and_strict_takes_yes_alone(tmp_path):
    asked = ("Is it red", "Is it red, quite?", "Is it wide?")  # one begins with another
    table = [["0", "", "", n, "0", "", "", "global (x)", text] for n, text in enumerate(asked, 1)]
    data = write_data(tmp_path / "data", [["lost", "", "", 1, "0", "", "", "global (x)", "?"], *table])
    file = tmp_path / "res_detail.txt"
    for said, plain, strict in (("yes", 1, 1), ("Yes", 1, 0), ("yes, it is", 0, 0), ("red, quite?, yes", 0, 0)):
        answers = ("yes", said, "no")
        lines = [f"a, b/0.png, (0, 0, 8, 8), {text}, {word}" for text, word in zip(asked, answers, strict=True)]
        file.write_text("\n".join(lines) + "\n")
        for official, right in ((False, plain), (True, strict)):
            told, n = read_official(file, data, official)
            assert told["DPG"] == pytest.approx(100 * (1 + right) / 3) and n == 1
            assert told["unanswered"] == (said.lower() != "yes")
