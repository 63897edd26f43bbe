"""The page's process, from its first word to its last: what it leaves, and what it says."""

import os
import signal

import httpx
import pytest
from forks import start

from called import addressed, apexgen_forked, wait_to_say
from runs import finished_run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_as_soon_as_its_address_is_said_it_leaves_nothing_and_says_so(tmp_path, number):
    temporary, log, wrong = tmp_path / "files", tmp_path / "log", tmp_path / "wrong"
    temporary.mkdir()
    run = finished_run(tmp_path / "run", "scenes")
    process = start(log, "app", str(run), errors=wrong, TMPDIR=str(temporary))
    try:
        wait_to_say(process, log, r"http://127\.0\.0\.1:\d+/")
        os.kill(process.pid, number)
        process.join(30)
    finally:
        process.kill()
    said = "stopped; what was drawn is removed, save what was downloaded"
    assert (process.exitcode, log.read_text().splitlines()[1:], wrong.read_text()) == (0, [said], "")
    assert not list(temporary.iterdir())


def test_for_machines_its_address_alone_is_on_standard_output(tmp_path):
    with addressed(tmp_path, "app", "scenes") as (url, farewell):
        assert "gradio" in httpx.get(url).text
        assert httpx.get(url, headers={"Host": "rebound.example"}).status_code == 400
    assert farewell == ["stopped; what was drawn is removed, save what was downloaded"]


def test_a_host_that_is_none_is_one_line(tmp_path):
    code, _, said = apexgen_forked(tmp_path, "app", "scenes", "--host", "256.1.1.1")
    assert code == 2 and said.startswith("apexgen: --host 256.1.1.1: ")
    assert "write --host 127.0.0.1" in said and said.count("\n") == 1
