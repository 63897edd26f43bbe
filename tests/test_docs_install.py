"""The lines of the pages that install and make: taken by pip and make themselves, which say what they would do."""

import os
import subprocess
import sys

import pytest

import snippets
from snippets import ROOT, SHELL


def lines(program):
    """Each line of the pages with this program, once."""
    shells = [block for block in snippets.EVERY if block.language in SHELL and block.page.name != "design.md"]
    return sorted({tuple(words) for block in shells for words in block.commands() if words[0] == program})


def test_what_the_pages_install_is_all_that_these_tests_have():
    """Nothing is fetched: what a line asks for is here, extras too, or pip would look for it and fail."""
    asked = [words[2:] for words in lines("pip") if words[2:] != (".",)]  # which the Makefile does
    assert len(asked) >= 3 and all(words[:2] == ("pip", "install") for words in lines("pip"))
    dry = ("--dry-run", "--no-index", "--disable-pip-version-check")
    words = [sys.executable, "-m", "pip", "install", *dry, *(word for words in asked for word in words)]
    said = subprocess.run(words, capture_output=True, text=True)
    assert said.returncode == 0 and "does not provide the extra" not in said.stderr, said.stderr


@pytest.mark.parametrize("words", lines("make"), ids=" ".join)
def test_what_the_pages_make_is_a_target_that_sets_all_up(words):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    said = subprocess.run([*words, "-n", "-B"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "-m venv .venv" in said.stdout
    assert said.stdout.index("pip install") < said.stdout.rindex(".venv/bin/")
