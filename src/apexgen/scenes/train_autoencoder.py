"""Train the tiny autoencoder: first both halves, for latents that a flow can learn, then its decoder on noisy ones."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from apexgen.generate import to_tensor
from apexgen.precision import fast_in_bfloat16
from apexgen.progress import counted, working
from apexgen.rules import TASKS
from apexgen.scenes.draw import draw_pictures
from apexgen.scenes.prompts import draw_captions

if TYPE_CHECKING:
    from apexgen.scenes.build import Recipe

NOISE, DECODER_NOISE = 0.1, 0.4  # deviation on the latents; the largest one on the decoder's


def training_pictures(recipe: "Recipe") -> Tensor:
    """The pictures both stages train on, (N, 3, H, W) in [-1, 1]."""
    captions = draw_captions(-(-recipe.autoencoder_pictures // len(TASKS)), held_out=False, seed=1)
    with working("drawing pictures"):
        return to_tensor(draw_pictures(captions, seed=recipe.seed))


def _lowered() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=fast_in_bfloat16("cpu"))


def train_autoencoder(vae: Any, pictures: Tensor, recipe: "Recipe", report: Callable[[str], None]) -> None:
    """Fit pictures through latents of mean 0, deviation 1, uncorrelated, and readable under noise of deviation 0.1.

    L = |y - x| + (y - x)^2 + 0.05 (mean^2 + (deviation - 1)^2 + 0.5 covariance^2), y decoded from z + 0.1 noise: a flow
    starts from such noise, and its small errors should not show.
    """

    def loss(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        with _lowered():
            z = vae.encode(x).latents.float()
            y = vae.decode(z + NOISE * torch.randn(z.shape, generator=generator)).sample.float()
        return _fit(y, x), 0.05 * _moments(z)

    _descend("autoencoder", vae, loss, pictures, recipe, recipe.autoencoder_steps, 3e-3, report)


def train_decoder(vae: Any, pictures: Tensor, recipe: "Recipe", report: Callable[[str], None]) -> None:
    """Fit the decoder alone, the latents staying what they are, under noise of a deviation drawn from U(0, 0.4).

    A sampler's errors are larger than the first stage's noise; read through it, pictures should still be whole.
    """

    def loss(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        deviation = DECODER_NOISE * torch.rand((len(x), 1, 1, 1), generator=generator)
        with _lowered():
            with torch.no_grad():
                z = vae.encode(x).latents.float()
            y = vae.decode(z + deviation * torch.randn(z.shape, generator=generator)).sample.float()
        return _fit(y, x), torch.zeros(())

    _descend("decoder", vae.decoder, loss, pictures, recipe, recipe.decoder_steps, 2e-3, report)


def _descend(
    name: str,
    network: Any,
    loss: Callable[[Tensor, Generator], tuple[Tensor, Tensor]],
    pictures: Tensor,
    recipe: "Recipe",
    steps: int,
    learning_rate: float,
    report: Callable[[str], None],
) -> None:
    generator = torch.Generator().manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    for step in counted(range(steps), f"training the {name}"):
        x = pictures[torch.randint(len(pictures), (recipe.autoencoder_batch,), generator=generator)]
        fit, moments = loss(x, generator)
        optimizer.zero_grad()
        (fit + moments).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            report(f"{name} {step}/{steps}: {fit.item():.4f}")


def _fit(y: Tensor, x: Tensor) -> Tensor:
    return (y - x).abs().mean() + (y - x).square().mean()


def _moments(z: Tensor) -> Tensor:
    covariance = torch.cov(z.transpose(0, 1).flatten(1))
    across = covariance - torch.diag(covariance.diagonal())
    mean, deviation = z.mean((0, 2, 3)), z.std((0, 2, 3))
    return mean.square().mean() + (deviation - 1).square().mean() + 0.5 * across.square().mean()
