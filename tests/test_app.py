"""The page in a real browser, served by a real process: type, draw, compare, download, and be told of mistakes."""

import re
import time
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from forks import start
from PIL import Image

from apexgen.app.launch import QUIET, launch
from apexgen.app.page import Desk, build_page
from apexgen.app.studio import Studio
from apexgen.drawer import open_model
from browser import in_browser, launched
from called import wait_to_say
from runs import finished_run

PROMPT = "a photo of a red circle"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("shown") / "run", "scenes")


@pytest.fixture(scope="module")
def started(folder, tmp_path_factory):
    """Where a real process shows the page of the run, and its log; stopped, it leaves no file behind."""
    temporary, log = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("log") / "log"
    process = start(log, "app", str(folder), TMPDIR=str(temporary))
    try:
        yield wait_to_say(process, log, r"(http://127\.0\.0\.1:\d+/)")[1], log
    finally:
        process.terminate()
        process.join(20)
        stopped = process.exitcode is not None
        process.kill()
        process.join()
    assert stopped and not list(temporary.glob("apexgen-app-*"))


@pytest.fixture(scope="module")
def address(started):
    return started[0]


@pytest.fixture(scope="module")
def browser():
    """A browser that keeps what it has loaded."""
    with launched() as browser, browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.set_default_timeout(30_000)
        yield context


@pytest.fixture
def page(browser, address):
    """The page, opened; it must ask this machine alone for anything, and its scripts must not fail."""
    with browser.new_page() as page:
        asked, failed = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        opened(page, address)
        yield page
        assert asked and not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
        assert not failed


def opened(page, address):
    """The page, with a teacher that takes little time."""
    page.goto(address)
    page.fill("#teacher-steps input[type=number]", "2")
    page.press("#teacher-steps input[type=number]", "Tab")


def draw(page, prompt, seed="5"):
    page.fill("#prompt textarea", prompt)
    page.fill("#seed input", seed)
    page.click("#draw")


def pictures(page, count):
    """Wait until so many are in the gallery."""
    page.wait_for_function(f"document.querySelectorAll('#gallery .thumbnail-item').length == {count}")


@in_browser
def test_typed_drawn_compared_and_downloaded(page, folder, tmp_path):
    page.click("#steps label:has-text('2')")
    draw(page, PROMPT)
    pictures(page, 1)
    told = page.inner_text("#told")
    assert "student@2" in told and "teacher@2 guided 3" in told and "4 evaluations" in told and "x\nas fast" in told
    model = open_model(folder)
    for role, drawer in (("few", model.student(2)), ("many", model.teacher(2, 3.0))):
        with page.expect_download() as download:
            page.click(f"#get-{role}")
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        with Image.open(file) as picture:
            assert picture.text["prompt"] == PROMPT and picture.text["seed"] == "5" and picture.text["steps"] == "2"
            drawn = np.asarray(picture, dtype=float)
        assert np.abs(drawn - 255 * drawer.draw([PROMPT], [5])[0]).max() <= 1
        assert re.search(r"a-photo-of-a-red-circle-5-(student|teacher)-2", file.name)


@in_browser
def test_the_handle_is_dragged_to_compare(page):
    draw(page, PROMPT)
    pictures(page, 1)
    page.wait_for_function("[...document.querySelectorAll('#compare img')].filter(i => i.naturalWidth).length == 2")
    page.wait_for_timeout(1000)  # the page scrolls to what was drawn
    page.locator("#compare").scroll_into_view_if_needed()
    box = page.locator("#compare").bounding_box()
    between = {key: box[key] + box[size] * share for key, size, share in (("x", "width", 0.3), ("y", "height", 0.6))}
    between |= {"width": box["width"] * 0.15, "height": box["height"] * 0.3}
    teachers, middle = page.screenshot(clip=between), box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, middle, steps=4)
    page.mouse.up()
    assert page.screenshot(clip=between) != teachers  # the student's now


@in_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_whole_pictures_stand_side_by_side_each_above_what_it_took_and_captions_cover_nothing(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    draw(page, PROMPT)
    pictures(page, 1)
    page.wait_for_function("[...document.querySelectorAll('#pair img')].filter(i => i.naturalWidth).length == 2")
    page.wait_for_timeout(1000)  # the page scrolls to what was drawn
    many, few = (page.locator(f"#whole-{side} img").bounding_box() for side in ("many", "few"))
    assert many["y"] == few["y"] and many["x"] + many["width"] <= few["x"]
    assert many["width"] == pytest.approx(many["height"], abs=1) and many["width"] > 130
    for picture, card in zip((many, few), page.locator("#told .apex-card").all()[:2], strict=True):
        box = card.bounding_box()
        assert box["x"] == pytest.approx(picture["x"], abs=3) and box["y"] >= picture["y"] + picture["height"]
        assert re.search(r"\d m?s", card.inner_text())
    shown, caption = (page.locator(f"#gallery {part}").first.bounding_box() for part in ("img", ".caption-label"))
    assert caption["y"] >= shown["y"] + shown["height"] - 1


@in_browser
def test_a_chosen_picture_comes_back_with_its_prompt_and_seed_and_the_dice_throws_another(page):
    draw(page, "a red ring", "1")
    pictures(page, 1)
    draw(page, "two blue circles", "2")
    pictures(page, 2)
    page.click("#gallery .thumbnail-item >> nth=1")
    page.wait_for_function("document.querySelector('#prompt textarea').value == 'a red ring'")
    assert page.input_value("#seed input") == "1"
    assert "a-red-ring-1-student" in page.locator("#compare img").last.get_attribute("src")
    page.click("#dice")
    page.wait_for_function("document.querySelector('#seed input').value != '1'")
    assert 0 <= int(page.input_value("#seed input")) < 2**32


@in_browser
def test_a_mistake_is_told_in_words(page):
    for prompt, seed, said in (
        ("   ", "5", "prompt: a prompt is empty; write at least a word"),
        (PROMPT, "", "Not drawn: the seed is empty; write a whole number"),
        (PROMPT, "1.5", "the seed is 1.5; write a whole number"),
        (PROMPT, "-3", "the seed is -3; write a whole number"),
    ):
        draw(page, prompt, seed)
        page.locator(".toast-body", has_text=said).wait_for()
    assert page.locator("#gallery .thumbnail-item").count() == 0
    draw(page, "a red dragon")  # and all goes on
    pictures(page, 1)
    page.locator(".toast-body", has_text="Drawn, but the model does not know: dragon").wait_for()
    assert page.get_by_role("button", name="Throw the dice").bounding_box()["width"] < 80


@in_browser
def test_many_prompts_of_a_file_are_drawn_at_once(page, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red ring\n\ntwo blue circles\na white cross\n")
    page.click("#many > button")
    page.set_input_files("#many input[type=file]", tmp_path / "prompts.txt")
    page.wait_for_function("document.querySelector('#lines textarea').value.includes('white')")
    page.click("#draw-all")
    pictures(page, 3)
    assert "in a batch of 3" in page.inner_text("#told")
    names = [image.get_attribute("src") for image in page.locator("#gallery img").all()]
    assert ["cross-2" in names[0], "circles-1" in names[1], "ring-0" in names[2]] == [True] * 3


@in_browser
def test_on_a_phone_nothing_is_wider_than_the_screen(browser, address):
    with browser.new_page() as page:
        page.set_viewport_size({"width": 390, "height": 844})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            opened(page, address)
            draw(page, PROMPT)
            pictures(page, 1)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            box = page.locator("#compare").bounding_box()
            assert box["width"] > 300 and box["x"] >= 0
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == (scheme == "dark")


def test_fifty_requests_at_once_are_all_answered(address):
    from gradio_client import Client

    client = Client(address, verbose=False, download_files=False, analytics_enabled=False)
    jobs = [client.submit("a red ring", seed, 1, 1, api_name="/draw") for seed in range(50)]
    for seed, job in enumerate(jobs):
        files = str(job.result(timeout=120)[:2])
        assert f"a-red-ring-{seed}-student-1" in files and f"a-red-ring-{seed}-teacher-1" in files


def test_beyond_the_queue_a_request_is_told_so_and_those_that_wait_are_drawn(folder, tmp_path, monkeypatch):
    from gradio_client import Client

    for name, said in (QUIET | {"GRADIO_TEMP_DIR": str(tmp_path)}).items():
        monkeypatch.setenv(name, said)
    monkeypatch.setattr("apexgen.app.page.WAITING", 2)
    studio = Studio(open_model(folder), 3.0, tmp_path)
    page = build_page(studio, [])
    client = Client(launch(page, "127.0.0.1", None)[1], verbose=False, download_files=False, analytics_enabled=False)
    try:
        with studio._alone:  # nothing is drawn until all have asked
            jobs = [client.submit("a red ring", seed, 1, 1, api_name="/draw") for seed in range(6)]
            while sum(job.done() for job in jobs) < 3:  # one is drawn, two wait
                time.sleep(0.05)
            refused = [str(job.exception()) for job in jobs if job.done()]
            early = [job for job in jobs if not job.done()]
        drawn = [str(job.result(timeout=60)[:2]) for job in early]
    finally:
        page.close()
    assert len(drawn) == 3 and all("a-red-ring" in files for files in drawn)
    assert refused == ["Queue is full! Please try again."] * 3


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("out of memory, 2 GiB wanted\nand much more"), "Not drawn: out of memory, 2 GiB wanted"),
        (OSError(28, "No space left on device"), "Not drawn: [Errno 28] No space left on device"),
        (RuntimeError(), "Not drawn: RuntimeError"),
    ],
)
def test_what_the_machine_can_not_do_is_told_in_words_too(error, said):
    gradio = pytest.importorskip("gradio")

    def draw(*_):
        raise error

    with pytest.raises(gradio.Error) as raised:
        Desk(SimpleNamespace(draw=draw)).draw("a red ring", 0, 1, 1, [])
    assert raised.value.message == said and raised.value.print_exception  # the log has the rest


@pytest.mark.parametrize("prompts", [["ring"] * 65, []])
def test_a_studio_refuses_none_and_too_many(folder, tmp_path, prompts):
    with pytest.raises(ValueError, match="at most 64 at once" if prompts else "a prompt is empty"):
        Studio(open_model(folder), 3.0, tmp_path).draw(prompts, 0, 1, 1)


def test_a_pipeline_alone_is_shown_in_many_steps_and_few(tmp_path):
    pair = Studio(open_model("scenes"), 3.0, tmp_path).draw(["a red ring"], 0, 1, 2)[0]
    assert (pair.many.name, pair.few.name) == ("teacher@2 guided 3", "teacher@1 guided 3")
    assert (pair.many.evaluations, pair.few.evaluations) == (4, 2) and pair.few.file.is_file()


def test_the_page_sends_no_figures(address):
    assert httpx.get(f"{address}config").json()["analytics_enabled"] is False


def asked(address, *fields):
    from gradio_client import Client

    client = Client(address, verbose=False, download_files=False, analytics_enabled=False)
    return client.predict("a red ring", *fields, api_name="/draw")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (("nan", 1, 1), "the seed is nan; write a whole number"),
        (("inf", 1, 1), "the seed is inf; write a whole number"),
        (("seven", 1, 1), "the seed is seven; write a whole number"),
        ((10**400, 1, 1), "the seed is 1000"),
        ((0, 3, 1), "the number of few steps is 3; write 1, 2 or 4"),
        ((0, 1, 51), "the number of teacher steps is 51; write 1 to 50"),
        ((0, 1, None), "the number of teacher steps is empty"),
    ],
)
def test_a_script_that_asks_for_what_can_not_be_is_told_in_words(started, fields, said):
    address, log = started
    with pytest.raises(Exception, match=f"Not drawn: {said}"):
        asked(address, *fields)
    assert "Traceback" not in log.read_text()
