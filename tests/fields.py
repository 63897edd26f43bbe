"""A small network and small inputs, in float64, for the laws of the objectives."""

import copy

import torch
from torch import nn

from apexgen.condition import Condition
from apexgen.discriminator import Discriminator
from apexgen.objectives import Batch, Draw, Nets


class Field(nn.Module):
    """A small pixelwise network of (B, 3, H, W) that reads the time and the condition."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3 + 1 + 4, 16), nn.Linear(16, 3)

    def forward(self, x, t, r, c):
        pixels = x.movedim(1, -1)
        said = torch.cat([t.flatten(1), c.embeds.mean(1)], dim=1)[:, None, None]
        h = torch.cat([pixels, said.expand(*pixels.shape[:-1], -1)], dim=-1)
        return self.last(self.first(h).tanh()).movedim(-1, 1)


def nets():
    first = [Field().double() for _ in range(4)]
    with torch.random.fork_rng():  # so that what a test draws next does not depend on what Nets has come to hold
        snapshot = Field().double()
    return Nets(*first, snapshot, discriminator(first[1]))


def discriminator(teacher):
    """Heads on a frozen copy of a field's hidden layer."""
    frozen = copy.deepcopy(teacher).requires_grad_(False)
    made = Discriminator(frozen, [frozen.first], width=16)
    made.heads.double()
    return made


def modules(networks):
    """What holds parameters, by its name in Nets."""
    found = vars(networks) | {"discriminator": networks.discriminator.heads}
    return {name: module for name, module in found.items() if module is not None}


def batch(n=4):
    c = Condition(torch.randn(n, 5, 4).double(), torch.ones(n, 5))
    null = Condition(torch.zeros(1, 5, 4).double(), torch.ones(1, 5))
    return Batch(c, null, torch.randn(n, 3, 4, 4).double())


def draw(objective, n=4, seed=0):
    one = objective.draw((n, 3, 4, 4), torch.Generator().manual_seed(seed))
    noises, times = (tuple(value.double() for value in kind) for kind in (one.noises, one.times))
    return Draw(noises, times, one.shares)


def terms(objective, networks, one, step=0, seed=0):
    return objective.terms(networks, one, draw(objective, len(one.c), seed), step)


def gradient(value, *networks):
    """Of all parameters, flat; zero where the value does not read one."""
    weights = parameters(networks)
    found = torch.autograd.grad(value, weights, allow_unused=True)
    return torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for w, g in zip(weights, found, strict=True)])


def kept_gradient(*networks):
    """What backward has left on all parameters, flat; zero where it left nothing."""
    return torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in parameters(networks)])


def parameters(networks):
    return [weight for network in networks for weight in network.parameters()]
