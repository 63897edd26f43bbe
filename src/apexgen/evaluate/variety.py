"""How unlike the pictures of one prompt are: what quality does not tell, and one-step students lose first."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


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


def pairwise(features: Tensor, distance: Literal["cosine", "rms"]) -> Tensor:
    """The distances (m (m - 1) / 2,) of every two of m features (m, width), in float64."""
    rows = features.double()
    if distance == "cosine":
        unit = nn.functional.normalize(rows, dim=1)
        upper = torch.triu_indices(len(rows), len(rows), offset=1)
        return 1 - (unit @ unit.mT)[upper[0], upper[1]]
    return nn.functional.pdist(rows) / rows.shape[1] ** 0.5
