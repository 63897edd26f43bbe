"""How unlike the pictures of one prompt are: what quality does not tell, and one-step students lose first."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from apexgen.evaluate.features import PIXELS, pixels
from apexgen.evaluate.gallery import open_picture

BY_PIXELS = f"rms of pixels, {PIXELS} x {PIXELS}"  # what `apart` tells distances by


@dataclass(frozen=True)
class Variety:
    """Mean distances of pictures."""

    within: float  # of two pictures of one prompt: the mean over prompts; 0 is collapse
    error: float  # the standard error of `within` over prompts; 0 for a single one
    between: float  # of the first pictures of two prompts; 0 where there is one prompt
    prompts: int

    @property
    def share(self) -> float:
        """within / between: the share of all variety that the noise, not the prompt, decides."""
        return self.within / self.between if self.between else 0.0


def variety(features: Tensor, prompts: Sequence[str], distance: Literal["cosine", "rms"]) -> Variety:
    """The variety of pictures by their features (n, width), each of a prompt.

    cosine: 1 - cos, for a network's features; rms: the root of the mean squared difference, for pixels or latents.
    ValueError where no prompt has two pictures.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        groups[prompt].append(index)
    repeated = [rows for rows in groups.values() if len(rows) > 1]
    if not repeated:
        raise ValueError("variety takes several pictures a prompt; write --seeds 4")
    means = torch.stack([pairwise(features[rows], distance).mean() for rows in repeated])
    firsts = pairwise(features[[rows[0] for rows in groups.values()]], distance)
    error = float(means.std() / len(means) ** 0.5) if len(means) > 1 else 0.0
    return Variety(float(means.mean()), error, float(firsts.mean()) if len(firsts) else 0.0, len(repeated))


def apart(files: Sequence[Path], prompts: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """How far two pictures of a prompt are apart by their pixels, "within", and its standard error.

    Neither where each prompt has one picture.
    """
    if len(set(prompts)) == len(prompts):
        return {}, {}
    see, parts = pixels(), (files[start : start + 32] for start in range(0, len(files), 32))
    features = torch.cat([see([open_picture(file) for file in part]) for part in parts])
    found = variety(features, prompts, "rms")
    return {"within": found.within}, {"within": found.error}


def pairwise(features: Tensor, distance: Literal["cosine", "rms"]) -> Tensor:
    """The distances (m (m - 1) / 2,) of every two of m features (m, width), in float64."""
    rows = features.double()
    if distance == "cosine":
        unit = nn.functional.normalize(rows, dim=1)
        upper = torch.triu_indices(len(rows), len(rows), offset=1)
        return 1 - (unit @ unit.mT)[upper[0], upper[1]]
    return nn.functional.pdist(rows) / rows.shape[1] ** 0.5
