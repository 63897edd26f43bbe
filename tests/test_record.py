"""A run writes down what it ran on and what a step cost, beside its numbers."""

import json

from rich.console import Console

from apexgen.config import load_run
from apexgen.distill import distill
from apexgen.report.page import write_page
from small import SHORT


def test_a_step_of_flow_matching_is_one_forward_and_one_backward(tmp_path):
    settings = [one for one in SHORT if not one.startswith("objective")]
    settings += ["objective.name=flow_matching", "train.accumulate=2"]
    settings += ["train.steps=2", "train.evaluate_every=1", "train.evaluate_prompts=1"]
    distill(load_run(None, [f"folder={tmp_path / 'run'}", *settings]), Console(quiet=True))
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["evaluations_per_step"] == 3 and told["warnings"] == []  # whatever the previews drew
    assert told["peak_memory_bytes"] > 1e8 and {"python", "torch", "device"} <= told["environment"].keys()
    assert "3 network evaluations a sample and step" in write_page([tmp_path / "run"]).read_text()
