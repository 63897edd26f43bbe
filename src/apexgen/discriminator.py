"""A discriminator that is mostly the teacher: small heads on what its blocks make of noised latents.

Sauer et al., https://arxiv.org/abs/2403.12015, section 3. Their heads are told the noise level and the text once more;
here the features, which the teacher made knowing both, are all a head sees.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from apexgen.condition import Condition
from apexgen.velocities import Velocity


class Discriminator:
    """Logits of noised latents: above 0 is real. Its heads train; the teacher's weights must take no gradient.

    blocks: the teacher's modules that are read; each puts out (..., width), or a tuple that ends with it.
    """

    def __init__(self, teacher: Velocity, blocks: Sequence[nn.Module], width: int, seed: int = 0) -> None:
        self.teacher, self.blocks = teacher, blocks
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.heads = nn.ModuleList(_head(width) for _ in blocks)

    def features(self, x: Tensor, t: Tensor, c: Condition) -> list[Tensor]:
        """What each block says of x at time t, (B, ..., width), in the heads' precision; it carries x's graph."""
        said: list[Tensor] = []

        def record(block: nn.Module, inputs: Any, output: Any) -> None:
            said.append(output[-1] if isinstance(output, tuple) else output)

        hooks = [block.register_forward_hook(record) for block in self.blocks]
        try:
            self.teacher(x, t, t, c)
        finally:
            for hook in hooks:
                hook.remove()
        return [one.to(next(self.heads.parameters()).dtype) for one in said]

    def logits(self, features: Sequence[Tensor], learns: bool = True) -> Tensor:
        """(B, K), one of each token of each block; where it does not learn, no gradient is left on the heads."""
        judged = []
        for head, said in zip(self.heads, features, strict=True):
            weights = {name: weight if learns else weight.detach() for name, weight in head.named_parameters()}
            judged.append(functional_call(head, weights, (said,)).flatten(1))
        return torch.cat(judged, dim=1)


def _head(width: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))
