"""Judges that see: the form of an answer, interviews that go on after a kill."""

import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image
from rich.console import Console

from apexgen.evaluate.endpoint import Endpoint
from apexgen.evaluate.interview import FUSE, count_unanswered, interview, read_log
from apexgen.evaluate.judge import YES_NO, Form, Inquiry, View, code_of
from stub_server import COLORS, Stub, endpoint, inquiries, liar, oracle, serving, write_picture

CONSOLE = Console(quiet=True)


MARKS = Form((("Consistency", ("0", "1", "2")), ("Realism", ("0", "1", "2"))))


SCORE = Form((("Score", ("0", "1")),), guarded=False)


@pytest.mark.parametrize("said", ["KQX yes", "KQX: Yes.", " **kqx YES**\n"])
def test_an_answer_in_its_form_is_read(said):
    assert YES_NO.read(said, "KQX") == ["yes"]


@pytest.mark.parametrize(
    "said", ["", "yes", "KQX yes or no", "KQX yes, it is", "KQX yes\nKQX no", "I think: KQX yes", "KQZ yes", "KQX"]
)
def test_an_answer_in_no_form_or_with_anything_beside_is_none(said):
    assert YES_NO.read(said, "KQX") is None


def test_lines_are_read_in_their_order_and_range_alone():
    assert MARKS.read("KQX Consistency: 2\n\nKQX Realism: 0", "KQX") == ["2", "0"]
    for said in ("KQX Realism: 0\nKQX Consistency: 2", "KQX Consistency: 3\nKQX Realism: 0", "KQX Consistency: 2"):
        assert MARKS.read(said, "KQX") is None
    assert SCORE.read("Score: 1") == ["1"]
    assert SCORE.read("Score: 1\nScore: 0") is None and SCORE.read("Score: 10") is None


LOOSE = Form(MARKS.lines, guarded=False)


@pytest.mark.parametrize(
    "said",
    [
        "Consistency: 2\nRealism: 0",
        "**Consistency:** 2\n**Realism**: 0",
        "The cat is there.\n\n1. consistency: 2 (all of it)\n2. realism: 0/2, plainly drawn\n\nThat is all.",
        "- Realism 0\n- Consistency\uff1a 2",
        'The sign says "Consistency: 1".\nConsistency: 2\nRealism: 0',
    ],
)
def test_a_published_form_is_found_among_other_words_as_its_script_does(said):
    assert LOOSE.read(said) == ["2", "0"]


@pytest.mark.parametrize(
    "said",
    [
        "Consistency: 2",
        "Consistency: 2\nRealism: 3",
        "Consistency: 2\nConsistency: 1\nRealism: 0",
        "Consistency: 20\nRealism: 0",
        "The sign reads Consistency: 2 and Realism: 2",
        '"Consistency: 2"\n"Realism: 2"',
        "Inconsistency: 2\nRealism: 0",
    ],
)
def test_a_published_form_with_two_choices_or_only_quoted_is_none(said):
    assert LOOSE.read(said) is None


def test_the_question_shows_the_very_form_that_is_read():
    for form, best in ((YES_NO, ["yes"]), (MARKS, ["2", "2"])):
        question = form.word("Is it red?", "KQX")
        assert form.read(oracle(Image.new("RGB", (8, 8), COLORS["red"]), question), "KQX") == best


def test_what_is_written_into_a_picture_is_no_answer(tmp_path):
    """A judge that repeats the picture's words would have let it win without the code, and does not with it."""
    parrot = Stub(lambda picture, question: "Score: 1")
    view = View(write_picture(tmp_path / "a.png", "red"))
    with serving(parrot) as address:
        for guarded, value in ((False, ["1"]), (True, None)):
            asked = Inquiry("a", view, "Is it blue?", Form((("Score", ("0", "1")),), guarded))
            [answer] = interview(endpoint(address), [asked], tmp_path / "log", CONSOLE)
            assert answer.value == value
    assert answer.said == "Score: 1" and answer.why == "not in the form asked for"
    assert len(parrot.requests) == 1 + endpoint(address).tries


def test_codes_differ_by_picture_and_question(tmp_path):
    with serving(Stub(oracle)) as address:
        judge = endpoint(address)
        keys = {inquiry.key(judge) for inquiry in inquiries(tmp_path)}
    assert len(keys) == len({code_of(key) for key in keys}) == 18


def test_answers_do_not_depend_on_how_many_are_asked_at_once(tmp_path):
    asked, found = inquiries(tmp_path), []
    for workers in (1, 8):
        stub = Stub(oracle, delay=0.02, troubles=[(500, b"", {})] * 3)
        with serving(stub) as address:
            judge = endpoint(address, workers=workers)
            found.append(interview(judge, asked, tmp_path / f"log-{workers}", CONSOLE))
        assert stub.most_at_once <= workers
    assert found[0] == found[1]
    assert [answer.value for answer in found[0]] == [
        ["yes" if i % 3 == j else "no"] for i in range(6) for j in range(3)
    ]


def test_what_is_answered_is_not_asked_again_and_what_changed_is(tmp_path):
    asked, log = inquiries(tmp_path), tmp_path / "log"
    with serving(Stub(oracle)) as address:
        before = interview(endpoint(address), asked, log, CONSOLE)
    with log.open("ab") as opened:
        opened.write(b'{"key": "torn')
    write_picture(tmp_path / "0.png", "blue")
    stub = Stub(oracle)
    with serving(stub) as address:
        after = interview(endpoint(address), asked, log, CONSOLE)
    assert len(stub.requests) == 3 and after[3:] == before[3:]
    assert [answer.value for answer in after[:3]] == [["no"], ["no"], ["yes"]]
    assert len(read_log(log)) == 21
    log.write_bytes(b"nonsense\n" + log.read_bytes())
    with pytest.raises(ValueError, match="line 1, is no answer"):
        read_log(log)


def test_unanswered_questions_are_told_counted_and_asked_again(tmp_path):
    asked, log = inquiries(tmp_path, 2), tmp_path / "log"
    stub = Stub(lambda picture, question: "maybe" if "red" in question else oracle(picture, question))
    console = Console(record=True, quiet=False, file=open(os.devnull, "w"))
    with serving(stub) as address:
        answers = interview(endpoint(address), asked, log, CONSOLE)
        assert count_unanswered(answers, console) == 2
        assert "2 unanswered, counted as wrong: not in the form asked for" in console.export_text()
        stub.says = oracle
        stub.requests.clear()
        again = interview(endpoint(address), asked, log, CONSOLE)
    assert len(stub.requests) == 2 and count_unanswered(again, CONSOLE) == 0


def test_a_server_that_is_gone_stops_the_run_and_not_every_question(tmp_path):
    with serving(Stub(oracle)) as address:
        pass
    judge = Endpoint(address, "stub", workers=2, requests=2, pause=0.0)
    with pytest.raises(OSError, match=f"{FUSE} questions in a row .*ConnectError"):
        interview(judge, inquiries(tmp_path, 20), tmp_path / "log", CONSOLE)
    assert all(answer.value is None for answer in read_log(tmp_path / "log").values())


def test_a_judge_that_never_has_the_form_stops_the_run(tmp_path):
    with serving(Stub(lambda *_: "I would say so")) as address:
        with pytest.raises(OSError, match=rf"{FUSE} questions in a row \(not in the form asked for\)"):
            interview(endpoint(address, workers=1), inquiries(tmp_path, 20), tmp_path / "log", CONSOLE)


def test_a_killed_interview_goes_on_and_nobody_works_beside_a_living_one(tmp_path):
    asked, log = inquiries(tmp_path, 4), tmp_path / "log"
    stub = Stub(oracle, delay=0.1)
    program = (
        "import sys; from pathlib import Path; from rich.console import Console\n"
        "from apexgen.evaluate.interview import interview; import stub_server as t\n"
        "folder = Path(sys.argv[2]); interview(t.endpoint(sys.argv[1], workers=2), t.inquiries(folder, 4), "
        "folder / 'log', Console(quiet=True))"
    )
    with serving(stub) as address:
        paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
        command = [sys.executable, "-c", program, address, str(tmp_path)]
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths})
        while len(read_log(log)) < 4:
            time.sleep(0.01)
        with pytest.raises(ValueError, match=r"another process is at work in .*; wait for its end") as refused:
            interview(endpoint(address), asked, log, CONSOLE)
        assert "\n" not in str(refused.value)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = len(read_log(log))
        time.sleep(0.3)
        stub.requests.clear()
        stub.delay = 0.0
        resumed = interview(endpoint(address, workers=2), inquiries(tmp_path, 4), log, CONSOLE)
        assert len(stub.requests) == len(asked) - kept < len(asked)
        assert resumed == interview(endpoint(address), asked, tmp_path / "fresh", CONSOLE)


def test_missing_and_broken_pictures_are_named(tmp_path):
    with serving(Stub(oracle)) as address:
        for name, content in (("gone.png", None), ("torn.png", b"\x89PNG torn")):
            if content:
                (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=name):
                interview(
                    endpoint(address), [Inquiry("x", View(tmp_path / name), "?", YES_NO)], tmp_path / "log", CONSOLE
                )


def test_the_liar_is_one():
    picture = Image.new("RGB", (8, 8), COLORS["red"])
    assert YES_NO.read(liar(picture, YES_NO.word("Is it red?", "KQX")), "KQX") == ["no"]
