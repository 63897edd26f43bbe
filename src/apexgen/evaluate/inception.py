"""The Inception network that FID is defined by: its 2,048 features before the last layer.

Szegedy et al., https://arxiv.org/abs/1512.00567, with the weights of 2015-12-05 that Heusel et al. chose
(https://arxiv.org/abs/1706.08500). It is not the ImageNet classifier of the same name: averages leave the border out,
and the last block pools by the largest. Names are those of the weights' file, which torch-fidelity reads too.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
SOURCE = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{WEIGHTS}"
CLASSES = 1008  # of the layer after the features, which is not read; the ImageNet classifier has 1,000
SIZE = 299  # pixels a side of what it is given

# A block joins its paths. A path's stages follow one another (>), those side by side are joined (|). A stage is a
# pool, or the name, width and kernel of a convolution; /2 halves the sides.
STEM = {
    "Conv2d_1a_3x3": "32 3x3/2",
    "Conv2d_2a_3x3": "32 3x3 unpadded",
    "Conv2d_2b_3x3": "64 3x3",
    "largest_2": "largest/2",
    "Conv2d_3b_1x1": "80 1x1",
    "Conv2d_4a_3x3": "192 3x3 unpadded",
    "largest_4": "largest/2",
}
DOUBLE = "branch3x3dbl_1 64 1x1 > branch3x3dbl_2 96 3x3 > branch3x3dbl_3 96 3x3"


def _at_35(pooled: int) -> list[str]:
    five = "branch5x5_1 48 1x1 > branch5x5_2 64 5x5"
    return ["branch1x1 64 1x1", five, DOUBLE, f"average > branch_pool {pooled} 1x1"]


def _at_17(width: int) -> list[str]:
    seven = f"branch7x7_1 {width} 1x1 > branch7x7_2 {width} 1x7 > branch7x7_3 192 7x1"
    double = "branch7x7dbl_1 {0} 1x1 > branch7x7dbl_2 {0} 7x1 > branch7x7dbl_3 {0} 1x7 > branch7x7dbl_4 {0} 7x1"
    double = double.format(width) + " > branch7x7dbl_5 192 1x7"
    return ["branch1x1 192 1x1", seven, double, "average > branch_pool 192 1x1"]


def _at_8(pool: str) -> list[str]:
    three = "branch3x3_1 384 1x1 > branch3x3_2a 384 1x3 | branch3x3_2b 384 3x1"
    double = "branch3x3dbl_1 448 1x1 > branch3x3dbl_2 384 3x3 > branch3x3dbl_3a 384 1x3 | branch3x3dbl_3b 384 3x1"
    return ["branch1x1 320 1x1", three, double, f"{pool} > branch_pool 192 1x1"]


BLOCKS = {
    "Mixed_5b": _at_35(32),
    "Mixed_5c": _at_35(64),
    "Mixed_5d": _at_35(64),
    "Mixed_6a": ["branch3x3 384 3x3/2", f"{DOUBLE}/2", "largest/2"],
    "Mixed_6b": _at_17(128),
    "Mixed_6c": _at_17(160),
    "Mixed_6d": _at_17(160),
    "Mixed_6e": _at_17(192),
    "Mixed_7a": [
        "branch3x3_1 192 1x1 > branch3x3_2 320 3x3/2",
        "branch7x7x3_1 192 1x1 > branch7x7x3_2 192 1x7 > branch7x7x3_3 192 7x1 > branch7x7x3_4 192 3x3/2",
        "largest/2",
    ],
    "Mixed_7b": _at_8("average"),
    "Mixed_7c": _at_8("largest"),
}


class Convolution(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, width: int, out: int, kernel: tuple[int, int], stride: int, padded: bool) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else 0
        self.conv = nn.Conv2d(width, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.bn(self.conv(x)))


def _stage(width: int, words: list[str]) -> tuple[nn.Module, int]:
    """The module that "largest/2", or "64 5x5", describes, and its width; one that halves the sides has no padding."""
    described, stride = (words[-1][:-2], 2) if words[-1].endswith("/2") else (words[-1], 1)
    if described == "average":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), width
    if described == "largest":
        return nn.MaxPool2d(3, stride, padding=1 if stride == 1 else 0), width
    padded = described != "unpadded" and stride == 1
    kernel = words[1].removesuffix("/2").split("x")
    out = int(words[0])
    return Convolution(width, out, (int(kernel[0]), int(kernel[1])), stride, padded), out


class Block(nn.Module):
    """Paths side by side, joined along the channels."""

    def __init__(self, width: int, paths: list[str]) -> None:
        super().__init__()
        self.paths: list[list[list[str]]] = []
        self.width = 0
        for number, path in enumerate(paths):
            now, stages = width, []
            for text in path.split(" > "):
                beside, widths = [], []
                for words in (part.split() for part in text.split(" | ")):
                    name = words[0] if len(words) > 1 else f"pool_{number}"
                    module, out = _stage(now, words[1:] or words)
                    self.add_module(name, module)
                    beside.append(name)
                    widths.append(out)
                stages.append(beside)
                now = sum(widths)
            self.paths.append(stages)
            self.width += now

    def forward(self, x: Tensor) -> Tensor:
        ends = []
        for stages in self.paths:
            y = x
            for beside in stages:
                y = torch.cat([self.get_submodule(name)(y) for name in beside], dim=1)
            ends.append(y)
        return torch.cat(ends, dim=1)


class Inception(nn.Module):
    """Pictures (B, 3, 299, 299) in [-1, 1] to features (B, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        width = 3
        for name, described in STEM.items():
            module, width = _stage(width, described.split())
            self.add_module(name, module)
        for name, paths in BLOCKS.items():
            block = Block(width, paths)
            self.add_module(name, block)
            width = block.width

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x.mean(dim=(2, 3))


def load_inception(file: Path) -> Inception:
    """The network with the weights of a file, .pth or .safetensors; ValueError, one line, if broken, or others."""
    return with_weights(_read(file), str(file))


def with_weights(weights: dict[str, Tensor], origin: str) -> Inception:
    """The network with these weights, frozen.

    ValueError, one line, for other weights, such as the ImageNet classifier's, which would fit.
    """
    if len(weights.get("fc.weight", range(CLASSES))) != CLASSES or any(name.startswith("Aux") for name in weights):
        raise ValueError(f"{origin} is the ImageNet classifier, not FID's network; download {SOURCE}")
    with torch.device("meta"):  # without drawing weights that are not used
        network = Inception()
    counters = {name: torch.tensor(0) for name in network.state_dict() if name.endswith("num_batches_tracked")}
    given = counters | {name: weight for name, weight in weights.items() if not name.startswith("fc.")}
    try:
        network.load_state_dict(given, assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise ValueError(f"{origin} is not FID's Inception: {reason} Download {SOURCE}") from None
    return network.float().eval().requires_grad_(False)


def _read(file: Path) -> dict[str, Tensor]:
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{file} holds no weights that can be read safely: {type(error).__name__}") from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{file} holds no table of weights; download {SOURCE}")
    return dict(weights)
