"""How far two sets of features are apart: FID and KID, by torchmetrics."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

FEW = 10_000  # pictures below which FID says more of their number than of their quality
SUBSETS, SUBSET = 100, 1000  # of KID: how many, and of how many pictures each


@dataclass(frozen=True)
class Kernel:
    """KID, the mean over subsets, and the subsets' deviation."""

    value: float
    deviation: float
    subset: int  # pictures of each
    subsets: int


class _Passed(nn.Module):
    """Hands torchmetrics features that are features already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid(real: Tensor, drawn: Tensor) -> float:
    """The Frechet distance of the Gaussians of two sets of features (n, width), in float64.

    |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)). Heusel et al., https://arxiv.org/abs/1706.08500, Eq. 6. Biased: the fewer
    the pictures, the larger. ValueError for a set of less than two.
    """
    return float(_compared(torchmetrics("image.fid").FrechetInceptionDistance, real, drawn).compute())


def kid(real: Tensor, drawn: Tensor, seed: int) -> Kernel:
    """The squared MMD of two sets of features (n, width) under the kernel (x y / width + 1)^3, unbiased.

    Binkowski et al., https://arxiv.org/abs/1801.01401, Eq. 3. Subsets of 1,000 pictures, or of all where there are
    fewer, which are then one subset; the seed chooses them. ValueError for a set of less than two.
    """
    subset = min(SUBSET, len(real), len(drawn))
    subsets = SUBSETS if subset < max(len(real), len(drawn)) else 1
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save")
        torch.manual_seed(seed)  # torchmetrics draws the subsets from the global generator
        kind = torchmetrics("image.kid").KernelInceptionDistance
        mean, deviation = _compared(kind, real, drawn, subsets=subsets, subset_size=subset).compute()
    return Kernel(float(mean), float(deviation), subset, subsets)


def _compared(kind: Any, real: Tensor, drawn: Tensor, **options: Any) -> Any:
    for name, features in (("reference", real), ("drawn", drawn)):
        if len(features) < 2:
            raise ValueError(f"{len(features)} {name} pictures have no distribution; give at least two")
    metric = kind(feature=_Passed(real.shape[1]), **options)
    metric.update(real.double(), real=True)
    metric.update(drawn.double(), real=False)
    return metric


def torchmetrics(module: str) -> Any:
    """A module of torchmetrics. ValueError, one line, where the package is missing."""
    from importlib import import_module

    try:
        return import_module(f"torchmetrics.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torchmetrics":
            raise
        raise ValueError('FID, KID and CLIP score need torchmetrics; write: pip install "apexgen[evaluate]"') from None


def warning(counts: dict[str, int]) -> str | None:
    """What a result must say of scores that are of too few pictures; None where all have enough."""
    few = {name: n for name, n in counts.items() if n < FEW}
    if not few:
        return None
    told = ", ".join(f"{name} {n:,}" for name, n in few.items())
    return f"FID is biased at small n ({told}): compare it with FIDs of as many pictures alone, or read KID (unbiased)"
