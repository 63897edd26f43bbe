"""Where a model computes in bfloat16: where the device multiplies in it. Where it only imitates that, a run says so."""

import json
from io import StringIO

import pytest
import torch
from rich.console import Console

from apexgen import demo, precision
from apexgen.config import load_run
from apexgen.distill import distill
from small import short_run


@pytest.fixture(params=[True, False], ids=["multiplies", "imitates"])
def fast(request, monkeypatch):
    """A CPU of either kind."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: request.param)
    for reader in ("demo", "distill"):
        monkeypatch.setattr(f"apexgen.{reader}.best_device", lambda: "cpu")
    return request.param


def test_it_is_bfloat16_where_that_is_fast_asked_for_or_held(fast):
    rough = torch.bfloat16
    assert precision.choose_precision("auto", "cpu") == (rough if fast else None)
    assert precision.choose_precision("auto", "cuda") == (rough if fast else None)  # a T4 imitates it too
    assert precision.choose_precision("float32", "cuda") is None
    for wanted in (("bfloat16", "cpu"), ("auto", "cpu", "4bit")):
        assert precision.choose_precision(*wanted) == rough


def test_the_demo_fits_a_cpu_that_imitates_it_and_what_is_asked_for_comes_last(fast):
    settings = [f"folder={demo.CONFIG}", *demo.settings_here()]
    run = load_run(demo.CONFIG, settings)
    taken = run.model.weights, run.train.steps, run.objective["kl_weight"]
    assert taken == (("bfloat16", 900, 2.0) if fast else ("float32", 300, 3.0))
    assert load_run(demo.CONFIG, [*settings, "train.steps=7"]).train.steps == 7


@pytest.mark.parametrize("fast", [False], ids=["imitates"], indirect=True)
def test_a_run_that_it_slows_down_is_told_so_and_its_record_too(fast, tmp_path):
    """That others are not, test_record.py says."""
    console = Console(file=StringIO(), width=80)
    distill(short_run(tmp_path / "run", "model.precision=bfloat16", "train.steps=2"), console)
    [told] = json.loads((tmp_path / "run" / "run.json").read_text())["warnings"]
    assert told.endswith('write model.precision = "float32"') and f"warning: {told}\n" in console.file.getvalue()


def test_the_line_names_the_setting_that_asked_for_it(fast):
    for weights, setting in (("bfloat16", "weights"), ("8bit", "weights"), ("float32", "precision")):
        line = precision.imitated(torch.bfloat16, weights, "cpu")
        assert line is None if fast else f"model.{setting} =" in line
    assert precision.imitated(None, "float32", "cpu") is precision.imitated(torch.bfloat16, "4bit", "cuda") is None
