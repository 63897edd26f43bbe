"""What other pages say of judging, run by tiny judges under the pages' names; judges' pages have tests of their own."""

import re
import sys

import pytest

from apexgen.cli import main
from stub_server import Stub, oracle, serving
from test_docs_commands import PAGES, commands, is_run
from test_docs_judges import write_data
from test_docs_statistics import CUT as STATISTICS
from test_docs_statistics import write_world as write_statistics
from vlms import build_vlm

STANDS_FOR = {  # a name on the pages: what is there
    "CLIP": "clip-vit-large-patch14",
    "evaluation_metadata_long.jsonl": "metadata.jsonl",
    "others/geneval": "eval/mine/pictures",
    "results.jsonl": "eval/mine/mask2former/results.jsonl",
    "res_detail.txt": "eval/mine-dpg/results_detail.txt",
}
JUDGES = ("--detector", "detector", "--clip", "judge")
CUT = {  # the beginning of a line's own words: what gives it a judge, or makes it short
    "evaluate geneval .*--(pictures|metadata)": JUDGES,
    "evaluate geneval ": (*JUDGES, "--metadata", "metadata.jsonl"),
    "evaluate diversity": ("--steps", "1"),
    **STATISTICS,
}
JUDGED = {page: [words for words in commands(page) if words[0] == "evaluate" and not is_run(words)] for page in PAGES}


def write_world(place, pipeline):
    """What the pages name, in a folder."""
    write_statistics(place, pipeline)
    write_data(place)
    build_vlm(place / "Qwen3-VL-8B-Instruct")


def given(words, address):
    """The words of a command, with models, files and judges that are there, and in few steps."""
    for word in words:
        if word == "Qwen3-VL-8B-Instruct" and "dpg" in words:  # a random one has no yes or no to say
            yield from (address, "--judge-model", "stub")
        else:
            there = STANDS_FOR.get(word, word).replace("http://127.0.0.1:8000/v1", address)
            yield there.replace("path/to/a/diffusers/pipeline", "pipeline").replace("@50", "@1")


@pytest.mark.parametrize("page", [page for page, lines in JUDGED.items() if lines])
def test_what_a_page_says_of_judging_runs(page, folders, monkeypatch, tmp_path):
    write_world(tmp_path, folders["sd3"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("apexgen.evaluate.collection.CACHE", tmp_path / "cache")
    monkeypatch.setattr("apexgen.evaluate.timing.BATCH", 1)
    with serving(Stub(oracle)) as address:
        for words in JUDGED[page]:
            said = [*given(words, address)]
            cut = next((cut for start, cut in CUT.items() if re.match(start, " ".join(said))), ())
            monkeypatch.setattr(sys, "argv", ["apexgen", *said, *cut])
            main()  # a mistake would exit
