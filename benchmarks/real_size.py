"""What an APEX step costs at published sizes: time and peak memory beside other objectives'.

    python benchmarks/real_size.py --out benchmarks/results    # a GPU of 80 GB
    python benchmarks/real_size.py --tiny                      # shows on a CPU that it runs; its figures say nothing

Weights, latents and texts are random, made on the device; text encoders and autoencoder are left out, for a step
calls neither. Beside APEX stand flow matching, the released recipe (twin_flow, guided, of order 2) and, where nothing
is checkpointed, DMD with its second set of weights; then one-step sampling beside the network alone, and both
compiled. Two such networks do not fit beside one another, nor should one hold what another objective needs: each is
opened alone, when the last is gone.
A ratio is of rounds of the same number; told are the median and the interval that holds it with 95 %.
"""

import argparse
import gc
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from base_memory import SHAPES
from step import OBJECTIVES, ratio, sampling_calls, seconds

from apexgen.backbones.base import Backbone
from apexgen.backbones.diffusion import find_adapter
from apexgen.condition import Condition
from apexgen.config import Run, load_run
from apexgen.data.corpus import Corpus
from apexgen.distill import open_student
from apexgen.evaluate.meter import forget_peak, peak_bytes
from apexgen.evaluate.timing import machine
from apexgen.files import write_whole
from apexgen.precision import best_device, choose_precision
from apexgen.train import Trainer

RECORDS = 8
COMPILED = {"apex, compiled": (*OBJECTIVES["apex"], "train.compile=true")}
NARROW = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16}
NARROW_QWEN = NARROW | {"in_channels": 16, "out_channels": 4, "joint_attention_dim": 16, "axes_dims_rope": (8, 4, 4)}
NARROW_SANA = NARROW | {
    "in_channels": 4, "out_channels": 4, "num_cross_attention_heads": 2, "cross_attention_head_dim": 16,
    "cross_attention_dim": 32, "caption_channels": 16,
}  # fmt: skip
CHECKPOINTED = "model.checkpointing=true"
LORA = ("model.weights=bfloat16", "model.rank=32")


@dataclass(frozen=True)
class Case:
    """One network and how it is trained."""

    model: str  # of SHAPES
    settings: tuple[str, ...]
    batch: int
    tokens: int  # of a prompt
    size: int  # pixels a side

    def objectives(self, compiled: bool) -> dict[str, tuple[str, ...]]:
        """The settings of each objective that the case allows: what is computed again must be so with one network."""
        allowed = OBJECTIVES | (COMPILED if compiled else {})
        return {name: allowed[name] for name in allowed if name != "dmd" or CHECKPOINTED not in self.settings}


CASES = {
    "SANA, LoRA": Case("SANA 1.6B", LORA, 4, 300, 1024),
    "SANA, full tuning": Case("SANA 1.6B", ("model.tune=full",), 4, 300, 1024),
    "Qwen-Image, LoRA": Case("Qwen-Image", (*LORA, CHECKPOINTED), 1, 256, 1024),
}


def open_random(case: Case, run: Run, narrow: bool) -> Backbone:
    """The case's network of random weights on the device, in an adapter that has nothing else."""
    pipeline, network, config = SHAPES[case.model]
    small = (NARROW_QWEN if case.model == "Qwen-Image" else NARROW_SANA) if narrow else {}
    device = best_device()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32 if run.model.weights == "float32" else torch.bfloat16)
    try:
        with torch.device(device):
            transformer = getattr(diffusers, network)(**config | small)
    finally:
        torch.set_default_dtype(torch.float32)
    parts = {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler(), "transformer": transformer}
    absent = dict.fromkeys(("vae", "text_encoder", "tokenizer"))
    backbone = find_adapter(pipeline)(getattr(diffusers, pipeline)(**parts, **absent))
    backbone.precision, backbone.weights = choose_precision("auto", device, run.model.weights), run.model.weights
    return backbone


def random_corpus(backbone: Backbone, case: Case) -> Corpus:
    """Texts of the encoder's width, and latents."""
    config = backbone.network.config
    side = case.size // backbone.pipeline.vae_scale_factor
    latents = torch.randn(RECORDS, config.in_channels // (4 if backbone.packs else 1), side, side)
    width = config.get("joint_attention_dim") or config.caption_channels
    embeds = torch.randn(RECORDS + 1, case.tokens, width)
    c = Condition(embeds, torch.ones_like(embeds[..., 0], dtype=torch.bool))
    rows = torch.arange(RECORDS)
    return Corpus([str(row) for row in rows], c.select(rows), rows, c.select(rows[:1] + RECORDS), latents)


def open_trainer(case: Case, settings: tuple[str, ...], narrow: bool) -> Trainer:
    """A trainer of an objective, with a network of its own."""
    usual = ("train.steps=1000", "train.on_divergence=stop", f"train.batch={case.batch}", *case.settings)
    run = load_run(None, [*usual, *settings])
    backbone = open_random(case, run, narrow)
    student, corpus = open_student(run, backbone), random_corpus(backbone, case)
    return Trainer(run, student, corpus, corpus.batch(0, 1, 0).x.shape[1:])


def peak(trainer: Trainer) -> float:
    """GiB at the most in a step."""
    device = trainer.student.backbone.device
    forget_peak(device)
    trainer.advance()
    return peak_bytes(device) / 2**30


@dataclass(frozen=True)
class Measured:
    """What one objective takes: seconds of each round, and GiB at the most in a step."""

    step: np.ndarray
    peak: float
    parameters: int
    trained: int
    drawn: dict[str, np.ndarray]  # of APEX: one-step sampling, the adapter's call and the network alone


def measure_one(case: Case, name: str, settings: tuple[str, ...], rounds: int, narrow: bool) -> Measured:
    """An objective's step, and what its student takes to draw: that is one network's for all, so it is APEX's alone."""
    trainer = open_trainer(case, settings, narrow)
    step, most = seconds({"step": trainer.advance}, rounds)["step"], peak(trainer)
    draws = sampling_calls(trainer, case.batch) if name.startswith("apex") else {}
    return Measured(
        step,
        most,
        parameters=sum(weight.numel() for weight in trainer.student.backbone.network.parameters()),
        trained=sum(weight.numel() for weight in trainer.student.weights.values()),
        drawn=seconds(draws, rounds if narrow else 4 * rounds),
    )


def measure(case: Case, rounds: int, narrow: bool) -> dict[str, Any]:
    """What each objective takes, and the ratios."""
    found = {}
    for name, settings in case.objectives(compiled=not narrow).items():
        found[name] = measure_one(case, name, settings, rounds, narrow)
        if torch.cuda.is_available():
            gc.collect()  # the network is in cycles, and the next one wants its place
            torch.cuda.empty_cache()
    apex = found["apex"]
    return asdict(case) | {
        "parameters": apex.parameters,
        "trained": apex.trained,
        "seconds": {name: float(np.median(one.step)) for name, one in found.items()},
        "peak GiB": {name: one.peak for name, one in found.items()},
        "apex over": {
            name: {"time": ratio(apex.step, one.step), "peak": round(apex.peak / one.peak, 3)}
            for name, one in found.items()
            if name != "apex"
        },
        "sampling over the network alone": ratio(apex.drawn["sampling"], apex.drawn["network"]),
        "images a second in one step": {
            name: case.batch / float(np.median(one.drawn["sampling"])) for name, one in found.items() if one.drawn
        },
    }


def interval(told: dict[str, Any]) -> str:
    return "{} ({} to {})".format(told["median"], *told["95 %"])


def table(report: dict[str, Any]) -> str:
    """Markdown: a row for each case and objective."""
    lines = [f"On {report['machine']}, diffusers {diffusers.__version__}; an APEX step over another.", ""]
    lines += ["| case | batch | pixels | over | time | peak memory |", "|---|---|---|---|---|---|"]
    for name, case in report["cases"].items():
        for other, told in case["apex over"].items():
            time, peak = interval(told["time"]), told["peak"]
            lines.append(f"| {name} | {case['batch']} | {case['size']} | {other} | {time} | {peak} |")
    lines += ["", "| case | sampling over the network alone | images a second | compiled |", "|---|---|---|---|"]
    for name, case in report["cases"].items():
        over = interval(case["sampling over the network alone"])
        rates = case["images a second in one step"]
        compiled = f"{rates['apex, compiled']:.2f}" if "apex, compiled" in rates else "-"
        lines.append(f"| {name} | {over} | {rates['apex']:.2f} | {compiled} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="one of them; all unless given")
    parser.add_argument("--rounds", type=int, default=15, help="at least 8, for an interval")
    parser.add_argument("--tiny", action="store_true", help="few layers, narrow, small pictures")
    parser.add_argument("--out", type=Path, help="a folder for real_size.json and real_size.md")
    arguments = parser.parse_args()
    if arguments.rounds < 8:
        parser.error(f"--rounds {arguments.rounds}: an interval takes 8; write --rounds 8")
    if not arguments.tiny and not torch.cuda.is_available():
        parser.error("no GPU is here, and these networks want one; write --tiny to see that it runs")
    report: dict[str, Any] = {"machine": machine(torch.device(best_device()))}
    report |= {"tiny": arguments.tiny, "cases": {}}
    for name in arguments.case or CASES:
        case = CASES[name]
        if arguments.tiny:
            case = Case(case.model, case.settings, batch=1, tokens=8, size=64)
        report["cases"][name] = measure(case, arguments.rounds, arguments.tiny)
        if arguments.out is not None:  # after each: the next one may not fit
            arguments.out.mkdir(parents=True, exist_ok=True)
            write_whole(arguments.out / "real_size.json", (json.dumps(report, indent=1) + "\n").encode())
            write_whole(arguments.out / "real_size.md", table(report).encode())
    print(json.dumps(report, indent=1))
    print(table(report), end="")


if __name__ == "__main__":
    main()
