"""The shift of a condition that tells a network's two roles apart: c_fake = A c + b.

Eq. 9 of APEX, https://arxiv.org/abs/2604.12322, where A = a I and b = b 1. Beside it, where that is hard to see:

    scalar      A = a I
    diagonal    A = a diag(s),            s a random sign for each channel
    low-rank    A = a (I - 2 Q Q^T),      Q some random orthonormal directions

All are a times an orthogonal matrix, so that a norm of the text leaves the last two visible whatever the sign of a.
A learned shift starts there, and every number in A and b is trained.
"""

from typing import Literal

import torch
from torch import Generator, Tensor, nn

Form = Literal["scalar", "diagonal", "low-rank"]
Place = Literal["condition", "projection"]


class Affine(nn.Module):
    """x (..., D) -> A x + b, with A = diag(scale) + left right^T; scale and bias are numbers or (D,)."""

    def __init__(self, scale: Tensor, bias: Tensor, left: Tensor | None = None, right: Tensor | None = None) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(scale), nn.Parameter(bias)
        self.left, self.right = (None if side is None else nn.Parameter(side) for side in (left, right))
        self.seen: Tensor | None = None  # what it was last given

    def forward(self, x: Tensor) -> Tensor:
        """A x + b of tokens x (..., D), in float32 at least and back in x's type; what was given is remembered."""
        self.seen = x.detach()
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        y = self.scale * exact + self.bias
        if self.left is not None and self.right is not None:
            y = y + (exact @ self.right) @ self.left.mT
        return y.to(x.dtype)

    def nearness(self) -> Tensor:
        """The mean of max(0, cos(x, A x + b))^2 over the tokens x it was last given: 0 at a right angle and beyond."""
        assert self.seen is not None, "nothing was shifted yet"
        x = self.seen.to(self.scale.dtype)
        return nn.functional.cosine_similarity(x, self(x), dim=-1).clamp(min=0).square().mean()


class Shift(nn.Module):
    """A map of the token embeddings and one of the pooled vector, which would else keep half of the real condition.

    place: "condition", on what the encoders made; "projection", on what the network's own first layer makes of that.
    """

    def __init__(self, embeds: Affine, pooled: Affine | None, place: Place, learned: bool = False) -> None:
        super().__init__()
        self.embeds, self.pooled, self.place = embeds, pooled, place
        self.requires_grad_(learned)

    def nearness(self) -> Tensor:
        """How near the shifted condition is to the real one, in direction: the sum of both maps' `nearness`."""
        maps = (self.embeds,) if self.pooled is None else (self.embeds, self.pooled)
        return torch.stack([part.nearness() for part in maps]).sum()


def scalar(a: float, b: float, place: Place = "condition") -> Shift:
    """The paper's shift, a c + b, which fits any condition."""
    text, pooled = (Affine(torch.tensor(float(a)), torch.tensor(float(b))) for _ in range(2))
    return Shift(text, pooled, place)


def nothing() -> Affine:
    """The map that changes nothing, bit for bit."""
    return Affine(torch.ones(()), torch.zeros(()))


def affine(form: Form, a: float, b: float, width: int, rank: int, generator: Generator) -> Affine:
    """One map of D = width channels; rank: of a low-rank form, at most the width."""
    assert 1 <= rank <= width, f"rank {rank} of {width} channels"
    if form == "scalar":
        return Affine(torch.tensor(float(a)), torch.tensor(float(b)))
    bias = torch.full((width,), float(b))
    if form == "diagonal":
        signs = 2 * torch.randint(2, (width,), generator=generator) - 1
        return Affine(a * signs.float(), bias)
    directions = torch.linalg.qr(torch.randn(width, rank, generator=generator)).Q
    return Affine(torch.full((width,), float(a)), bias, -2 * a * directions, directions.clone())
