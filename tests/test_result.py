"""Results: one JSON that comes back equal, refused with one line, and tables that keep unlike judges apart."""

import json

import pytest
from rich.console import Console

from apexgen.evaluate.result import Result, by_protocol, data_digest, load_result, save_result, table


def result(**changes):
    values = {
        "benchmark": "GenEval",
        "judge": "tiny",
        "model": "a student@1",
        "evaluations": 1,
        "scores": {"overall": 0.5, "colors": 0.25},
        "spread": {"overall": 0.01},
        "n": 4,
        "seeds": (42, 43),
        "settings": {"threshold": 0.3},
    }
    return Result.model_validate(values | changes)


def shown(*results):
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(results))
    return captured.get()


def test_a_result_comes_back_equal(tmp_path):
    save_result(result(), tmp_path / "new" / "result.json")
    assert load_result(tmp_path / "new" / "result.json") == result()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"judge": ""}, "judge"),
        ({"scores": {}}, "scores"),
        ({"n": 0}, "n = 0"),
        ({"score": {"overall": 1}}, "unknown key score: did you mean scores?"),
        ({"scores": {"overall": "NaN"}}, "scores.overall"),
    ],
)
def test_an_invalid_result_is_refused_in_one_line(tmp_path, changes, message):
    file = tmp_path / "result.json"
    file.write_text(json.dumps(result().model_dump(mode="json") | changes))
    with pytest.raises(ValueError) as error:
        load_result(file)
    assert message in str(error.value) and str(file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_what_is_no_result_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=r"x\.json") as error:
        load_result(tmp_path / "x.json")
    assert "\n" not in str(error.value)


def test_models_judged_alike_share_a_table():
    text = shown(result(), result(model="b teacher@50", evaluations=100, scores={"overall": 0.75, "speed": 3}))
    [head] = [line for line in text.splitlines() if "model" in line]
    assert [word for word in head.split() if word in ("overall", "colors", "speed")] == ["overall", "colors", "speed"]
    assert "0.5 ± 0.01" in text and "0.75" in text and text.count("judged by") == 1


def test_what_was_asked_is_known_by_its_content():
    assert data_digest(["a", "b"]) == data_digest(["a", "b"]) != data_digest(["b", "a"])
    assert data_digest({"x": 1, "y": 2}) == data_digest({"y": 2, "x": 1}) and len(data_digest([])) == 16


@pytest.mark.parametrize("changes", [{"judge": "other"}, {"benchmark": "GenEval 2"}, {"settings": {"threshold": 0.9}}])
def test_unlike_judges_and_protocols_never_share_a_column(changes):
    results = [result(), result(**changes), result(model="c")]
    assert [len(group) for group in by_protocol(results)] == [2, 1]
    text = shown(*results)
    assert text.count("judged by") == 2
    if "settings" in changes:
        assert "threshold = 0.3" in text and "threshold = 0.9" in text
