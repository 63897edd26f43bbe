"""A report is whole, opens anywhere, and shows what it was given and nothing that was not there."""

import json
import re

import numpy as np
import pytest
from rich.console import Console

from apexgen.report import picture_grid, table, write_report
from apexgen.report.chart import charts, read_metrics
from apexgen.report.rows import duration

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr", "overall")
PROMPTS = ["a ring", '<script>alert("x")</script> & co']


def entry(score, seconds):
    return {
        "score": dict.fromkeys(TASKS, score),
        "seconds_per_image": seconds,
        "spread": {"x": 0.2, "y": 0.19, "size": 0.04, "pairwise": 0.36, "color": 0.81},
    }


def full_report():
    return {
        "teacher": {"steps": 50, "guidance": 3.0} | entry(0.9, 0.124),
        "teacher_1": entry(0.05, 0.002),
        "student": {"1": entry(0.945, 0.002), "2": entry(0.96, 0.004), "10": entry(1.0, 0.02)},
        "training": {"objective": {"name": "apex"}, "steps": 600, "seconds": 61.0, "peak_memory_bytes": 2**31},
        "export": {"max_difference": 3e-6},
        "ablation": {"mix": {"1": entry(0.4, 0.002)}},
        "data": {"spread": {"x": 0.2, "y": 0.2, "size": 0.04}},
        "environment": {"python": "3.11"},
    }


def columns(names=("teacher@50", "student@1"), count=2, side=16):
    return {name: np.random.default_rng(0).random((count, side, side, 3)) for name in names}


def rendered(report, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))
    console.print(table(report))
    return console.export_text()


def test_the_page_needs_nothing_else_and_escapes_what_it_is_told(tmp_path):
    (tmp_path / "config.toml").write_text('x = "</code><b>"\n')
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "<i>": 1.0}\n{"step": 2, "<i>": 0.5}\n{"step": 3, "<')
    report = full_report()
    write_report(tmp_path, report, columns(), PROMPTS)
    page = (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert "<script" not in page and "<i>" not in page and "</code><b>" not in page
    assert not re.search(r'(?:src|href)="(?!data:image/png;base64,)', page) and "http" not in page
    assert page.count("<img ") == 4 and page.count("<img ") == len(re.findall(r'<img [^>]*alt="[^"]', page))
    assert "105%" in page and "62 times faster" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["config.toml", "grid.png", "metrics.jsonl", "report.html", "report.json"]
    )


@pytest.mark.parametrize("missing", ["teacher", "teacher_1", "student", "training", "export", "data", "environment"])
def test_a_page_is_made_of_what_there_is(tmp_path, missing):
    report = full_report()
    del report[missing]
    write_report(tmp_path, report, None, [])
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert not (tmp_path / "grid.png").exists()


def test_an_empty_report_is_a_page_too(tmp_path):
    write_report(tmp_path / "new", {}, None, [])
    assert (tmp_path / "new" / "report.html").is_file()


def test_a_report_that_can_not_be_written_leaves_the_old_one(tmp_path):
    write_report(tmp_path, full_report(), None, [])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="3 pictures for 2 prompts"):
        write_report(tmp_path, full_report() | {"export": {}}, columns(count=3), PROMPTS)
    with pytest.raises(TypeError):
        write_report(tmp_path, full_report() | {"more": object()}, None, [])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_table_fits_a_terminal_and_orders_its_rows():
    text = rendered(full_report())
    assert "…" not in text
    names = [line.split()[0] for line in text.splitlines()[2:]]
    assert names == ["teacher@50", "teacher@1", "student@1", "student@2", "student@10", "mix@1", "data"]


@pytest.mark.parametrize(("side", "cell"), [(16, 128), (48, 96), (64, 128), (100, 100), (512, 128)])
def test_a_grid_has_a_cell_for_each_picture(side, cell):
    one, three = (picture_grid(PROMPTS, columns(names, side=side)) for names in ("a", "abc"))
    assert three.width - one.width == 2 * (cell + 6) and one.height == three.height >= 2 * cell


def test_a_small_picture_is_enlarged_exactly():
    picture = np.zeros((1, 64, 64, 3))
    picture[0, :, :32] = (1, 0, 0)
    grid = np.asarray(picture_grid(["half red"], {"a": picture}))
    assert (grid == (255, 0, 0)).all(axis=2).sum() == 128 * 64


def test_a_grid_takes_what_a_broken_model_draws():
    picture_grid(["a"], {"b": np.full((1, 8, 8, 3), np.nan)})
    with pytest.raises(ValueError, match="differ in size"):
        picture_grid(PROMPTS, columns("a") | columns("b", side=8))
    with pytest.raises(ValueError, match="at least one"):
        picture_grid([], {})


def test_charts_pass_over_what_is_no_number(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": NaN, "b": 1, "s": "x"}\n[]\n{"step": 2, "a": 1, "b": 1, "s": "y"}\n{"st')
    (drawn,) = charts(read_metrics(path))
    assert (drawn.name, drawn.first, drawn.last, drawn.last_step) == ("b", 1.0, 1.0, 2)
    assert "nan" not in drawn.line + drawn.band
    assert read_metrics(tmp_path / "none") == []


def test_a_chart_stays_small_and_inside():
    metrics = [{"step": step, "a": float(np.sin(step)) + 1000 * (step == 5)} for step in range(1, 5000)]
    (drawn,) = charts(metrics)
    points = np.array([point.split(",") for point in drawn.line.split()], dtype=float)
    assert len(points) == 100 and points.min() >= 0 and (points.max(axis=0) <= (300, 110)).all()
    assert drawn.high < 2  # one peak does not flatten the rest


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.00193, "1.93 ms"), (0.0193, "19.3 ms"), (0.118, "118 ms"), (12.34, "12.3 s")]
)
def test_durations_have_three_digits(seconds, text):
    assert duration(seconds) == text
