"""What a run holds at the least, by the headers of its pipeline's files: nothing is opened, and no weight is read."""

import re
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

from apexgen.backbones.base import ATTENTION, TEXT_ATTENTION
from apexgen.backbones.diffusion import WEIGHTS, read_adapter
from apexgen.backbones.header import Entry, read_header
from apexgen.backbones.targets import fits
from apexgen.config import Run
from apexgen.config.model import PRESETS, Model
from apexgen.room import MOMENTS
from apexgen.train import open_objective

HELD = {  # bytes of a number of a matrix, and of any other, as the network's weights are held
    "float32": (4.0, 4.0),
    "bfloat16": (2.0, 2.0),
    "8bit": (1.0, 2.0),
    "4bit": (0.5 + 4 / 64, 2.0),  # with a scale for 64
}
FULL = 4  # bytes of a number that trains
ENCODING = ("encoder.", "quant_conv.")  # how names begin in the half of an autoencoder that is freed
TABLES = ("pos_embed.pos_embed",)  # kept with the weights, and none: they do not train
BLOCK = re.compile(r"\w+\.\d+\.")  # how those of a network's repeated blocks do
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Outline:
    """What of a pipeline a run's memory depends on."""

    network: Shapes
    decoder: Shapes  # of the autoencoder
    targets: tuple[str, ...]  # the family's own, of a LoRA


def read_outline(folder: Path) -> Outline:
    """A pipeline's outline. ValueError for a folder that is none apexgen knows, or files without a readable header."""
    adapter, network = read_adapter(folder), _shapes(folder / "transformer")
    decoder = {name: shape for name, shape in _shapes(folder / "vae").items() if not name.startswith(ENCODING)}
    return Outline(network, decoder, adapter.lora_targets)


def least_memory(run: Run, outline: Outline) -> dict[str, int]:
    """A training process's bytes, by part, without activations, text encoders and what trains beside the network."""
    network = outline.network
    cut = (run.train.processes or 1) if run.train.parallel == "fsdp" else 1
    weights, own = FULL * _numbers(outline.decoder), FULL * _numbers(network)
    parts: dict[str, int] = {}
    if run.model.tune == "full":
        parts["teacher's copy"] = own // cut
    else:
        weights += _held(network, run.model.weights)
        own = FULL * _lora_numbers(run.model, network, outline.targets)
    if cut > 1:
        parts["a block, gathered"] = 2 * FULL * _largest_block(network)
    trains = own * (2 if open_objective(run).needs_fake_network else 1)
    trained = trains // cut
    return {"weights": weights} | parts | {
        "LoRA" if run.model.tune == "lora" else "trained weights": trained,
        "gradients": trains if run.train.reduce_gradients == "step" else trained,
        "optimizer": int(MOMENTS[run.train.optimizer] * trained),
        "average": own // cut,
    }  # fmt: skip


def _shapes(part: Path) -> Shapes:
    """The shape of every tensor of a part of a pipeline."""
    headers = [read_header(file) for pattern in WEIGHTS for file in part.glob(pattern)]
    tensors: dict[str, Entry] = {name: entry for header in headers for name, entry in header.tensors.items()}
    return {name: entry.shape for name, entry in tensors.items() if name not in TABLES}


def _numbers(shapes: Shapes) -> int:
    return sum(map(prod, shapes.values()))


def _held(network: Shapes, weights: str) -> int:
    matrix, other = HELD[weights]
    return int(sum(prod(shape) * (matrix if len(shape) == 2 else other) for shape in network.values()))


def _largest_block(network: Shapes) -> int:
    blocks = Counter[str]()
    for name, shape in network.items():
        if found := BLOCK.match(name):
            blocks[found[0]] += prod(shape)
    return max(blocks.values(), default=0)


def _lora_numbers(model: Model, network: Shapes, own: tuple[str, ...]) -> int:
    modules = {name.removesuffix(".weight"): shape for name, shape in network.items() if name.endswith(".weight")}
    return sum(
        (model.rank or 0) * (shape[0] + prod(shape[1:]))
        for name, shape in modules.items()
        if len(shape) > 1 and _adapts(name, model.targets, own, is_linear=len(shape) == 2)
    )


def _adapts(name: str, targets: str | tuple[str, ...], own: tuple[str, ...], is_linear: bool) -> bool:
    """Whether a LoRA adapts a module, as `lora_names` has it."""
    if targets not in PRESETS:
        return fits(name, tuple(targets) or own)
    if targets == "all-linear":
        return is_linear or fits(name, own)
    kinds = (*ATTENTION, *TEXT_ATTENTION) if targets == "attention" else own
    return BLOCK.match(name) is not None and fits(name, own) and fits(name, kinds)
