"""The commands of docs/evaluation-vlm.md run in its order: a stub's server and a tiny model judge small data.

The files that are imported, as of others, are those that the commands before wrote. What is left is only parsed: the
block of --judge options is no command, and `hf download` fetches published models.
"""

import sys
from pathlib import Path

from apexgen.cli import main
from apexgen.evaluate import wise
from apexgen.evaluate.result import load_result
from runs import finished_run
from stub_server import Stub, oracle, serving
from test_docs_commands import commands
from test_dpg import grids
from test_dpg import write_data as write_dpg
from test_geneval2 import write_data as write_geneval2
from test_wise import write_data as write_wise
from vlms import build_vlm

IMPORTED = {  # a name on the page: what stands for it
    "results_detail.txt": "eval/mine-dpg/results_detail.txt",
    "RESULTS_FOLDER": "eval/mine-wise-legacy/results",
    "score_lists.json": "eval/mine-geneval2/score_lists.json",
}


def write_data(place):
    """Small data of the three benchmarks, under the pages' names."""
    write_dpg(place / "dpg_bench")
    for protocol in (wise.VERIFIED, wise.LEGACY):
        write_wise(place / "WISE", protocol)
    write_geneval2(place / "GenEval2")


def write_world(place):
    """What the page names, in a folder."""
    finished_run(place / "runs/mine", "scenes")
    write_data(place)
    grids(place / "GRIDS")
    build_vlm(place / "path/to/Qwen3-VL-8B-Instruct")


def given(words, address):
    """The words of a command, with judges that are there."""
    for word in words:
        if word == "JUDGE":
            yield from (address, "--judge-model", "stub")
        else:
            yield address if word == "http://127.0.0.1:8000/v1" else IMPORTED.get(word, word)


def test_the_commands_of_the_page_run_in_its_order(tmp_path, monkeypatch):
    write_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    with serving(Stub(oracle)) as address:
        for words in commands("docs/evaluation-vlm"):
            monkeypatch.setattr(sys, "argv", ["apexgen", *given(words, address)])
            main()  # a mistake would exit
    assert all(load_result(Path(file)).scores for file in ("sd3.json", "sd3-wise.json", "sd3-g2.json"))
    assert load_result(Path("eval/mine-dpg/result.json")).scores["DPG"] == 100  # of the pictures that are true
