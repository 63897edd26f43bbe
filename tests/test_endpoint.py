"""A judge behind a server: what it is asked, and servers that fail, refuse, babble or never end."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from PIL import Image
from rich.console import Console

from apexgen.evaluate.endpoint import KEY, Endpoint, seconds_to_wait
from apexgen.evaluate.interview import interview
from apexgen.evaluate.judge import YES_NO, NoAnswer
from stub_server import COLORS, Stub, endpoint, inquiries, oracle, serving

CONSOLE = Console(quiet=True)


def ask(address, **settings):
    judge = endpoint(address, **settings)
    return judge.ask(Image.new("RGB", (8, 8), COLORS["red"]), YES_NO.word("Is it red?", "KQX"), "")


@pytest.mark.parametrize(
    "trouble",
    [
        (429, b"slow down", {"Retry-After": "0"}),
        (500, b"oh", {}),
        (503, b"", {"Retry-After": "nonsense"}),
        (503, b"", {"Retry-After": f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT"}),
        (200, b"{not json", {}),
        (200, b'{"choices": []}', {}),
        (200, b'{"choices": ["x"]}', {}),
        (200, b'{"choices":' + b"[" * 200_000, {}),
    ],
)
def test_troubles_that_pass_are_waited_out(trouble):
    stub = Stub(oracle, troubles=[trouble, trouble])
    with serving(stub) as address:
        assert ask(address) == "KQX yes"
    assert len(stub.requests) == 3 and all(body == stub.requests[0] for body in stub.requests)
    assert stub.requests[0]["temperature"] == 0 and stub.requests[0]["path"] == "/v1/chat/completions"
    assert "chat_template_kwargs" not in stub.requests[0]


def test_a_time_out_is_tried_again_and_told():
    stub = Stub(oracle, troubles=[0.6])
    with serving(stub) as address:
        quick = Endpoint(address, "stub", timeout=0.2, pause=0.01)
        picture, question = Image.new("RGB", (8, 8), COLORS["red"]), YES_NO.word("Is it red?", "KQX")
        assert quick.ask(picture, question, "") == "KQX yes"
        stub.troubles = [0.6] * 4
        with pytest.raises(NoAnswer, match="ReadTimeout"):
            quick.ask(picture, question, "")
    assert len(stub.requests) == 6


def test_closed_it_ends_what_is_under_way_and_asks_no_more():
    stub = Stub(oracle, troubles=[30.0] * 2)
    with serving(stub) as address, ThreadPoolExecutor(2) as pool:
        judge, picture = endpoint(address), Image.new("RGB", (8, 8), COLORS["red"])
        waiting = [pool.submit(judge.ask, picture, YES_NO.word(f"Is it {color}?", "KQX"), "") for color in COLORS][:2]
        while stub.at_once < 2 and not any(answer.done() for answer in waiting):
            time.sleep(0.01)
        judge.close()
        for answer in waiting:
            with pytest.raises(NoAnswer, match=r"no answer from 127\.0\.0\.1"):
                answer.result(timeout=20)
        with pytest.raises(NoAnswer):
            judge.ask(picture, YES_NO.word("Is it red?", "KQX"), "")
    assert len(stub.requests) <= 3


def test_an_answer_that_drips_in_is_given_up():
    picture, stub = Image.new("RGB", (8, 8)), Stub(lambda *_: "KQX yes " + "and " * 500, drip=40)
    with serving(stub) as address:
        began = time.perf_counter()
        with pytest.raises(NoAnswer, match="TimeoutError"):
            Endpoint(address, "stub", timeout=0.3, pause=0.01, requests=1).ask(picture, "?", "")
        assert time.perf_counter() - began < 1
        stub.drip = 200
        assert Endpoint(address, "stub", timeout=5.0, requests=1).ask(picture, "?", "").startswith("KQX yes")


def test_a_wait_the_server_asks_for_is_kept_and_bounded():
    stub = Stub(oracle, troubles=[(429, b"", {"Retry-After": "0.3"})])
    with serving(stub) as address:
        began = time.perf_counter()
        ask(address)
    assert time.perf_counter() - began >= 0.3
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < seconds_to_wait(soon) <= 30
    for odd in ("", "nan", "-3", "x", f"Mon, 01 Jan 2024 00:00:00 +{'9' * 20}"):
        assert seconds_to_wait(odd) == 0


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"message": {"content": None, "refusal": "I can't"}}, "refused"),
        ({"message": {"content": "KQX yes"}, "finish_reason": "content_filter"}, "refused"),
        ({"message": {"content": None}}, "without text"),
        ({}, "without text"),
        ({"message": "yes"}, "without text"),
    ],
)
def test_refusals_and_empty_answers_are_none(said, why):
    with serving(Stub(lambda picture, question: said)) as address, pytest.raises(NoAnswer, match=why):
        ask(address)


def test_a_request_that_is_wrong_is_not_repeated_and_a_key_that_is_wrong_stops():
    stub = Stub(oracle, troubles=[(400, b"bad picture", {})])
    with serving(stub) as address:
        with pytest.raises(NoAnswer, match="400: bad picture"):
            ask(address)
        assert len(stub.requests) == 1
        stub.troubles = [(400, b"\x1b[2J\x1b]0;mine\x07 no\r\n picture", {})]
        with pytest.raises(NoAnswer, match=r"^status 400: \[2J\]0;mine no picture$"):
            ask(address)  # nothing that a terminal would obey
        stub.troubles = [(401, b"who are you", {})]
        with pytest.raises(ValueError, match=f"401: who are you; check --judge, --judge-model and {KEY}"):
            ask(address)


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "sk-secret")
    stub = Stub(lambda picture, question: "sk-secret yes", troubles=[(400, b"key sk-secret is odd", {})])
    with serving(stub) as address:
        judge = endpoint(address)
        answers = interview(judge, inquiries(tmp_path, 1), tmp_path / "log", CONSOLE)
    assert stub.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in (tmp_path / "log").read_text() + repr(judge) + repr(answers) + str(judge.settings())
    assert {answer.why for answer in answers} == {"status 400: key *** is odd", "not in the form asked for"}


@pytest.mark.parametrize(
    ("url", "model"),
    [("ftp://x", "m"), ("http://", "m"), ("http://me:key@x/v1", "m"), ("http://x/?key=1", "m"), ("http://x", "")],
)
def test_addresses_that_are_none_are_refused(url, model):
    with pytest.raises(ValueError, match="--judge"):
        Endpoint(url, model)


def test_probabilities_are_the_servers_and_without_them_it_is_refused():
    picture = Image.new("RGB", (8, 8))
    stub = Stub(lambda *_: "Yes", lambda *_: {"Yes": 0.5, " yes": 0.25, "No": 0.25})
    with serving(stub) as address:
        assert endpoint(address).chance(picture, "?", ("Yes", "yes", " Yes", " yes")) == pytest.approx(0.75)
        assert endpoint(address).chance(picture, "?", ("two",)) == 0
        stub.chances = None
        with pytest.raises(ValueError, match="tells no probabilities"):
            endpoint(address).chance(picture, "?", ("Yes",))


THOUGHTS = "<think>\nIt says KQX no, and\n\nKQX no\n</think>\n\n"


def test_thoughts_are_no_part_of_an_answer_and_have_room():
    for before in (THOUGHTS, THOUGHTS.removeprefix("<think>")):
        stub = Stub(lambda picture, question, before=before: before + oracle(picture, question))
        with serving(stub) as address:
            assert ask(address).strip() == "KQX yes" and stub.requests[0]["max_tokens"] == 4096
            ask(address, thinking=False)
            assert stub.requests[1]["max_tokens"] == 128


@pytest.mark.parametrize("content", ["<think>let me see", "", None])
def test_a_judge_that_thinks_to_the_end_is_told_how_not_to(content):
    end = "stop" if content else "length"
    cut = {"message": {"content": content, "reasoning_content": "hm"}, "finish_reason": end}
    with serving(Stub(lambda *_: cut)) as address, pytest.raises(NoAnswer, match="4096 tokens; add --no-thinking"):
        ask(address)


def test_a_first_token_that_begins_a_thought_has_no_probability():
    stub = Stub(lambda *_: "<think>", lambda *_: {"<think>": 1.0})
    with serving(stub) as address, pytest.raises(NoAnswer, match="add --no-thinking"):
        endpoint(address).chance(Image.new("RGB", (8, 8)), "?", ("Yes",))
