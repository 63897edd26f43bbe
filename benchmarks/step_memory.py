"""What an APEX step holds and costs beside a flow-matching one: same network, LoRA and batch, counted and not timed.

    python benchmarks/step_memory.py [--batch 4] [--checkpointing]

Held is the most that autograd keeps for backward at one moment; a forward is one of the student on the batch.
"""

import argparse

import torch
from torch import Tensor

from apexgen.config import load_run
from apexgen.cost import arithmetic, most_held
from apexgen.distill import open_backbone, open_student
from apexgen.objectives import Batch
from apexgen.train import descend, open_objective

RUNS = {
    "flow_matching": ("name=flow_matching",),
    "apex, warm-up": ("warmup=10",),
    "apex": ("warmup=0",),
    "apex, held": ("warmup=0", "redraw=false"),
    "apex, guided": ("warmup=0", "guidance=3.0"),
    "apex, held, guided": ("warmup=0", "redraw=false", "guidance=3.0"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--checkpointing", action="store_true")
    arguments = parser.parse_args()
    counted = {name: count(settings, arguments) for name, settings in RUNS.items()}
    base = counted["flow_matching"][0]
    print(f"{'':22}{'held, MB':>10}{'of flow matching':>18}{'forwards':>10}")
    for name, (held, forwards) in counted.items():
        print(f"{name:22}{held / 1e6:10.1f}{held / base:18.2f}{forwards:10.2f}")


def count(settings: tuple[str, ...], arguments: argparse.Namespace) -> tuple[int, float]:
    """Bytes held, and the arithmetic in forwards of the student."""
    changed = [f"objective.{setting}" for setting in settings]
    run = load_run(
        None, [*changed, "model.precision=float32", f"model.checkpointing={str(arguments.checkpointing).lower()}"]
    )
    backbone = open_backbone(run)
    student, objective = open_student(run, backbone), open_objective(run)
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.batch, *backbone.latent_shape())
    x, c = torch.randn(shape, generator=generator), backbone.encode_text(["two red rings"] * arguments.batch)
    batch, draw = Batch(c, backbone.encode_text([""]), x), objective.draw(shape, generator)

    def step() -> None:
        descend(objective, student.nets(), batch, draw, 0)

    t = torch.rand(arguments.batch, 1, 1, 1, generator=generator)
    with torch.no_grad():
        forward = arithmetic(lambda: backbone(x, t, t, c))
    own: list[Tensor] = [*backbone.network.parameters(), *student.average.values()]
    return most_held(step, own), arithmetic(step) / forward


if __name__ == "__main__":
    main()
