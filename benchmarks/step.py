"""What a training step costs, as ratios within one run: time, interleaved, median and spread; and bytes held.

    python benchmarks/step.py            # the embedded model, LoRA; a few minutes on two calm cores

An APEX step beside flow matching's, twin_flow's (the released recipe's forwards) and DMD's with its second network;
one-step sampling beside the bare call, which is the adapter's, and beside diffusers' network alone, on the arguments
that the adapter gives it; a step compiled and not. Every round takes one of each, every other round in the opposite
order, so that what else the machine does falls on all; a ratio is of the same round. Told are the median of the rounds
and the interval that holds it with 95 % (of order statistics: what the ratios' law is does not matter).

Bytes held are what autograd keeps for backward. Beside them stand the bytes of what an objective trains: weights,
their gradients and the optimizer's moments, of which DMD has a second set.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from told import new_parser, tell

from apexgen.config import load_run
from apexgen.cost import most_held
from apexgen.distill import open_backbone, open_student
from apexgen.encode import encode
from apexgen.sample import generate
from apexgen.train import Trainer, open_objective

ROUNDS, BATCH = 15, 16
OBJECTIVES = {
    "apex": ("objective.name=apex", "objective.warmup=0"),
    "flow_matching": ("objective.name=flow_matching",),
    "twin_flow": ("objective.name=twin_flow", "objective.guidance=1.8"),  # as released: guided, of order 2
    "dmd": ("objective.name=dmd", "objective.warmup=0"),
}


def open_trainer(*settings: str) -> Trainer:
    usual = ("data.limit=64", "train.steps=1000", f"train.batch={BATCH}", "model.precision=float32")
    run = load_run(None, [*usual, *settings])
    backbone = open_backbone(run)
    student = open_student(run, backbone)
    corpus = encode(run.data, backbone, open_objective(run).needs_pictures)
    return Trainer(run, student, corpus, backbone.latent_shape())


def seconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """The time of each call in each round, in alternating order, after two that do not count."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 2):
        for name in list(calls)[:: 1 if number % 2 else -1]:
            began = time.perf_counter()
            calls[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number > 1:
                taken[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in taken.items()}


def ratio(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    ratios, half = np.sort(one / other), 0.98 * np.sqrt(len(one))
    low, high = int(len(one) / 2 - half), int(np.ceil(len(one) / 2 + half))
    return {"median": round(float(np.median(ratios)), 3), "95 %": [round(float(ratios[n]), 3) for n in (low, high)]}


def held(trainer: Trainer) -> int:
    student = trainer.student
    own = [*student.backbone.network.parameters(), *student.trained.values(), *student.average.values()]
    return most_held(trainer.advance, own)


def trained_bytes(trainer: Trainer) -> dict[str, int]:
    """Bytes of what an objective trains, after a step: weights, gradients like them, and moments."""
    weights = sum(weight.nbytes for weight in trainer.student.trained.values())
    states = [value for state in trainer.optimizer.state.values() for value in state.values()]
    moments = sum(value.nbytes for value in states if isinstance(value, torch.Tensor) and value.dim())
    return {"weights": weights, "gradients": weights, "moments": moments}


def sampling_calls(trainer: Trainer, batch: int = BATCH) -> dict[str, Callable[[], Any]]:
    """One-step sampling, the adapter's call on the same inputs, and diffusers' network on what the adapter gives it."""
    adapter, device = trainer.student.backbone, trainer.student.backbone.device
    c = trainer.corpus.batch(0, batch, 0).c.to(device)
    noise, one = torch.randn(batch, *trainer.shape, device=device), torch.ones(batch, 1, 1, 1, device=device)

    @torch.no_grad()
    def bare() -> torch.Tensor:
        return adapter(noise, one, one, c)

    given: list[tuple[Any, Any]] = []
    note = lambda module, inputs, options: given.append((inputs, options))  # noqa: E731
    hook = adapter.network.register_forward_pre_hook(note, with_kwargs=True)
    bare()
    hook.remove()
    [(inputs, options)] = given

    @torch.no_grad()
    def alone() -> Any:
        with torch.autocast(device.type, dtype=adapter.precision, enabled=adapter.precision is not None):
            return adapter.network(*inputs, **options)

    return {"bare": bare, "network": alone, "sampling": lambda: generate(adapter, c, noise, 1)}


def main() -> None:
    out = new_parser(__doc__).parse_args().out
    trainers = {name: open_trainer(*settings) for name, settings in OBJECTIVES.items()}
    took = seconds({name: trainer.advance for name, trainer in trainers.items()}, ROUNDS)
    bytes_held = {name: held(trainer) for name, trainer in trainers.items()}
    others = [name for name in trainers if name != "apex"]
    report: dict[str, Any] = {"apex over": {name: ratio(took["apex"], took[name]) for name in others}}
    report["held by apex over"] = {name: round(bytes_held["apex"] / bytes_held[name], 3) for name in others}
    report["bytes trained"] = {name: trained_bytes(trainer) for name, trainer in trainers.items()}
    drew = seconds(sampling_calls(trainers["apex"]), 60 * ROUNDS)
    report["sampling over the bare call"] = ratio(drew["sampling"], drew["bare"])
    report["sampling over the network alone"] = ratio(drew["sampling"], drew["network"])
    compiled = open_trainer(*OBJECTIVES["apex"], "train.compile=true")
    both = seconds({"compiled": compiled.advance, "plain": trainers["apex"].advance}, ROUNDS)
    report["compiled over plain"] = ratio(both["compiled"], both["plain"])
    tell(report, out)


if __name__ == "__main__":
    main()
