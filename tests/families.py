"""The tiny pipeline of a family, opened; prompts and inputs for its network."""

import torch

from apexgen.backbones.diffusion import load_backbone
from pipelines import SQUARE

SHORT, LONG = "a red ring", "a photo of the two blue rings, three white squares"


def opened(folder):
    net = load_backbone(folder)
    net.size = SQUARE
    return net


def inputs(net, prompts=(SHORT, LONG)):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(len(prompts), *net.latent_shape(), generator=generator)
    t = torch.rand(len(prompts), 1, 1, 1, generator=generator)
    return x, t, net.encode_text(list(prompts))
