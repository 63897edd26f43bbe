"""Lines of the pages that fetch a judge, run by the real `hf` against a hub on loopback, and the judging after them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import snippets
from apexgen.cli import main
from apexgen.evaluate.geneval.records import read_records
from apexgen.evaluate.result import load_result
from judges import new_clip_judge, new_mask2former
from snippets import SHELL
from stub_hub import hub

BUILT = {  # a repository of the pages: what builds a tiny one of its kind
    "facebook/mask2former-swin-small-coco-instance": new_mask2former,
    "openai/clip-vit-large-patch14": new_clip_judge,
}


def fetched():
    """Each line of the pages that fetches."""
    shells = [block for block in snippets.EVERY if block.language in SHELL and block.page.name != "design.md"]
    return [tuple(words) for block in shells for words in block.commands() if words[0] == "hf"]


def fetch(words, address, home):
    """`hf` as it stands beside this Python, told where the hub and its cache are."""
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [str(Path(sys.executable).with_name(words[0])), *words[1:]]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache where `fetch` puts things, as this process sees it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    return tmp_path / "home"


def test_the_pages_fetch_judges_and_the_command_after_them_finds_both(cache, tmp_path, monkeypatch, capsys):
    """Before, each line that is missing is told as the page has it; after, nothing is asked of the hub any more."""
    repositories = {name: build(tmp_path / name) for name, build in BUILT.items()}
    metadata = tmp_path / "metadata.jsonl"
    metadata.write_text(json.dumps(read_records()[178]) + "\n")
    arguments = ["scenes", "--metadata", str(metadata), "--samples", "1", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["apexgen", "evaluate", "geneval", *arguments])
    with hub(repositories) as (address, asked):
        assert sorted(words[-1] for words in fetched()) == sorted(repositories)
        for words in fetched():
            with pytest.raises(SystemExit, match="2"):
                main()
            assert f"run: {' '.join(words)}" in capsys.readouterr().err
            said = fetch(words, address, cache)
            assert said.returncode == 0, said.stderr
        there = len(asked)
        main()
    assert load_result(tmp_path / "out/mask2former/result.json").n == 1
    assert len(asked) == there > 2 * len(repositories)
