"""The page's process, from its first word to its last: what it leaves, and what it says."""

import signal

import pytest

from runs import finished_run, run_app


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_as_soon_as_its_address_is_said_it_leaves_nothing_and_says_so(tmp_path, number):
    temporary = tmp_path / "files"
    temporary.mkdir()
    process = run_app(finished_run(tmp_path / "run", "scenes"), temporary)
    try:
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(number)
        said, wrong = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, said, wrong) == (
        0,
        "stopped; what was drawn is removed, save what was downloaded\n",
        "",
    )
    assert not list(temporary.iterdir())


def test_a_host_that_is_none_is_one_line(tmp_path):
    said = run_app("scenes", tmp_path, "--host", "256.1.1.1").communicate(timeout=60)[1]
    assert said.startswith("apexgen: --host 256.1.1.1: ") and "write --host 127.0.0.1" in said and said.count("\n") == 1
