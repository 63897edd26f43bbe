"""A report is whole, opens anywhere, and shows what it was given and nothing that was not there."""

import json
import re

import numpy as np
import pytest
from rich.console import Console

from apexgen.report import picture_grid, table, write_page, write_report
from apexgen.report.chart import charts
from apexgen.report.folder import differences, read_all, read_folder
from apexgen.report.rows import duration
from browser import in_browser, launched
from reports import TASKS, begun, columns, entry, preview

PROMPTS = ["a ring", '<script>alert("x")</script> & co']


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


def rendered(report, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))
    console.print(table(report))
    return console.export_text()


@pytest.fixture
def folder(tmp_path):
    return begun(tmp_path / "run")


def test_the_page_needs_nothing_else_and_escapes_what_it_is_told(folder):
    (folder / "config.toml").write_text('x = "</code><b>"\n')
    (folder / "metrics.jsonl").write_text('{"step": 1, "<i>": 1.0}\n{"step": 2, "<i>": 0.5}\n{"step": 3, "<')
    report = full_report()
    preview(folder, 0)
    write_report(folder, report, columns(), PROMPTS)
    page = (folder / "report.html").read_text()
    assert json.loads((folder / "report.json").read_text()) == report
    assert "<i>" not in page and "</code><b>" not in page
    assert not re.search(r'(?:src|href)="(?!data:image/webp;base64,)', page)
    assert "http" not in page and "url(" not in page and "import" not in page
    assert page.count("<img ") == 2 == len(re.findall(r'<img [^>]*alt="[^"]', page))
    assert "105%" in page and "62 times faster" in page


def test_a_run_that_trains_has_a_page_and_without_a_script_the_last_preview(folder):
    for step in range(0, 3000, 100):
        preview(folder, step)
    page = write_page([folder]).read_text()
    shown = re.findall(r'<img src="[^"]*" alt="step (\d+)"( hidden)?>', page)
    assert (shown[0], shown[-1], len(shown)) == (("0", " hidden"), ("2900", ""), 12)
    assert all(hidden for _, hidden in shown[:-1])
    assert "3 of 4: not at its end yet" in page and "Score by" not in page
    assert len(page) < 3e6


def test_runs_are_compared_by_what_differs(folder, tmp_path):
    other = begun(tmp_path / "other", config='folder = "x"\n[train]\nsteps = 4\nbatch = 8\n[objective]\nname = "dmd"\n')
    runs = read_all([folder, other])
    assert differences(runs) == [("train.batch", ["2", "8"]), ("objective.name", ["-", '"dmd"'])]
    (drawn,) = charts({run.name: run.metrics for run in runs})
    assert [line.run for line in drawn.lines] == ["run", "other"]
    page = write_page([folder, other], tmp_path / "two.html").read_text()
    assert "train.batch" in page and "train.steps" not in page
    with pytest.raises(ValueError, match="given twice"):
        write_page([folder, folder], tmp_path / "two.html")
    with pytest.raises(ValueError, match="no run's folder"):
        write_page([tmp_path])
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere; write one"):
        write_page([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match=r"--out .*no/a\.html: there is no folder .*; write --out a\.html"):
        write_page([folder], tmp_path / "no" / "a.html")


def test_several_runs_without_a_place_are_compared_here(folder, tmp_path, monkeypatch):
    other = begun(tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    page = write_page([folder, other])
    assert str(page) == "compared.html" and "2 runs" in (tmp_path / "compared.html").read_text()


def test_results_of_judges_are_shown_by_protocol_with_a_curve_over_steps(folder):
    shared = {"benchmark": "sweep", "judge": "<judge>", "n": 4, "spread": {"score": 0.05}, "settings": {}}
    told = [shared | {"model": f"run@{n}", "evaluations": n, "scores": {"score": n / 10}} for n in (1, 2, 4)]
    (folder / "eval").mkdir()
    (folder / "eval" / "sweep.json").write_text(json.dumps(told))
    page = write_page([folder]).read_text()
    assert "judged by &lt;judge&gt;" in page and "0.4 ± 0.05" in page and "score by network evaluations" in page


def test_what_any_judge_wrote_is_shown_and_what_others_wrote_is_not(folder):
    """By whatever name; a broken file is told only where it must be a result's."""
    shared = {"judge": "features", "model": "run@1", "n": 4, "spread": {"all": 0.5}, "scores": {"all": 7.25}}
    kid = shared | {"benchmark": "mine KID x 1000", "settings": {"spread": "deviation over subsets"}, "notes": ["few"]}
    for name, held in (("kid-x-1000", kid), ("result", {"scores": {"a": 1}}), ("number", 5), ("list", [1, None])):
        (folder / f"{name}.json").write_text(json.dumps(held))
    (folder / "other.json").write_text("{")
    page = write_page([folder]).read_text()
    assert "mine KID x 1000, judged by features" in page and "7.25 ± 0.5" in page
    assert "Few. ± is the deviation over subsets." in page and page.count(", judged by ") == 1
    (folder / "result.json").write_text("{")
    with pytest.raises(ValueError, match=r"result\.json is broken .* remove it"):
        read_folder(folder)


def test_a_broken_configuration_is_named_and_a_foreign_picture_passed_over(folder):
    preview(folder, 200)
    (folder / "samples" / "step-final.png").write_bytes(b"")
    assert [step for step, _ in read_folder(folder).previews] == [200]
    (folder / "config.toml").write_text("steps =")
    with pytest.raises(ValueError, match=r"config\.toml is broken .*; name a folder that apexgen train"):
        read_folder(folder)


def test_scores_have_a_standard_error_and_the_number_of_pictures(folder):
    write_report(folder, full_report(), None, [])
    page = (folder / "report.html").read_text()
    assert page.count("<small>± 0.037</small>") == 6 * len(TASKS) and page.count("<small>n = 120</small>") == 6
    assert "student@1: mean ± 3.70, the standard error, n = 120" in rendered(full_report())
    write_report(folder, {"student": {"1": entry(0.5, 0.1) | {"error": {}, "n": 6}}}, None, [])  # a picture a task
    page = (folder / "report.html").read_text()
    assert "n = 6" in page and "±" not in page.partition("Scores")[2].partition("</section>")[0]


def test_a_teacher_of_many_steps_is_a_level_without_dots_and_that_of_one_step_is_a_dot(folder):
    write_report(folder, full_report(), None, [])
    chart = (folder / "report.html").read_text().partition("Score by network evaluations")[2].partition("</section>")[0]
    assert 'stroke-dasharray="6 4"' in chart and chart.count("<circle") == 3 + 1
    named = [name.strip() for name in re.findall(r"<li><svg.*?</svg>([^<]*)", chart)]
    assert named == ["student", "teacher in 1 step", "teacher in 50 steps, guidance 3"]
    assert "teacher" not in " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", chart))  # a curve may run through words


def assert_slides(page):
    """One preview is seen at a time, the last at first; the slider shows each, and says which step it is of."""
    frames = page.locator(".frames").first
    images, slider = frames.locator("img"), frames.locator("input")
    assert images.count() > 1

    def seen():
        return [index for index in range(images.count()) if images.nth(index).is_visible()]

    assert seen() == [images.count() - 1] == [int(slider.input_value())]
    slider.focus()
    for index in reversed(range(images.count() - 1)):
        page.keyboard.press("ArrowLeft")
        assert seen() == [index]
        assert frames.locator("output").inner_text() == images.nth(index).get_attribute("alt")


@in_browser
def test_on_a_phone_what_matters_is_seen_and_two_runs_fit_a_desktop(folder, tmp_path):
    other = begun(tmp_path / "other")
    for step in (0, 2, 4):
        preview(folder, step)
    for run in (folder, other):
        write_report(run, full_report(), None, [])
    with launched() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.goto((folder / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        box = page.locator("tr.main td.overall").bounding_box()
        assert box["x"] + box["width"] < 390
        letters = "[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height)"
        assert min(page.evaluate(letters)) > 11
        assert_slides(page)
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(write_page([folder, other], tmp_path / "two.html").as_uri())
        assert page.evaluate("[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)")


def test_memory_is_shown_in_gigabytes(folder):
    lines = [{"step": step, "peak_memory_bytes": 1.08e9 + step} for step in (1, 2, 3)]
    (drawn,) = charts({"run": lines})
    assert (drawn.name, drawn.unit) == ("peak_memory", "GB") and drawn.lines[0].last == pytest.approx(1.08)
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "run.json").write_text('{"peak_memory_bytes": 1080000000}')
    page = write_page([folder]).read_text()
    assert "1.08 GB</span>" in page and "<dd>1.08 GB</dd>" in page


@pytest.mark.parametrize("missing", ["teacher", "teacher_1", "student", "training", "export", "data", "environment"])
def test_a_page_is_made_of_what_there_is(folder, missing):
    report = full_report()
    del report[missing]
    write_report(folder, report, None, [])
    assert (folder / "report.html").stat().st_size > 1000
    assert not (folder / "grid.png").exists()


def test_an_empty_report_is_a_page_too(folder):
    (folder / "metrics.jsonl").unlink()
    write_report(folder, {}, None, [])
    assert (folder / "report.html").is_file()


def test_a_report_that_can_not_be_written_leaves_the_old_one(folder):
    write_report(folder, full_report(), None, [])
    before = {path.name: path.read_bytes() for path in folder.glob("*.*")}
    with pytest.raises(ValueError, match="3 pictures for 2 prompts"):
        write_report(folder, full_report() | {"export": {}}, columns(count=3), PROMPTS)
    with pytest.raises(TypeError):
        write_report(folder, full_report() | {"more": object()}, None, [])
    assert {path.name: path.read_bytes() for path in folder.glob("*.*")} == before


def test_the_table_fits_a_terminal_and_orders_its_rows():
    text = rendered(full_report())
    assert "…" not in text
    names = [line.split()[0] for line in text.splitlines()[2:9]]
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


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.00193, "1.93 ms"), (0.0193, "19.3 ms"), (0.118, "118 ms"), (12.34, "12.3 s")]
)
def test_durations_have_three_digits(seconds, text):
    assert duration(seconds) == text
