"""Train the tiny transformer by flow matching, with the library's own objective, and keep its average."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from apexgen.backbones.base import Backbone, fast_attention
from apexgen.backbones.sana import Sana
from apexgen.data import Corpus, index_prompts
from apexgen.generate import to_tensor
from apexgen.objectives import FlowMatching, Nets
from apexgen.precision import choose_precision
from apexgen.progress import counted
from apexgen.scenes.draw import draw_pictures
from apexgen.scenes.prompts import draw_captions

if TYPE_CHECKING:
    from apexgen.scenes.build import Recipe

OBJECTIVE = FlowMatching(logit_mean=1.2, logit_deviation=1.2)  # times near noise, where the layout is decided
SHARES = {  # of the pictures: the tasks that are learnt last get the most
    "single_object": 0.10,
    "two_object": 0.15,
    "counting": 0.25,
    "colors": 0.15,
    "position": 0.15,
    "color_attr": 0.20,
}
CAPTION_DROPOUT = 0.1  # for guidance
CLIP, WARMUP = 1.0, 200
AVERAGE_DECAY = 0.9995
SAVE_EVERY = 1000
CHUNK = 500  # pictures encoded at once


def train_flow(pipeline: Any, recipe: "Recipe", work: Path, report: Callable[[str], None]) -> None:
    """Fit the pipeline's transformer, going on from work/flow.pt, and leave the averaged weights in it.

    The learning rate rises over 200 steps, stays, and falls linearly to zero over the last `flow_decay_steps`.
    """
    backbone = Sana(pipeline)
    backbone.precision = choose_precision("auto", "cpu")
    corpus = _corpus(backbone, recipe, work / "corpus.pt")
    network = backbone.network.requires_grad_(True)
    average = [weight.detach().clone() for weight in network.parameters()]
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.flow_learning_rate, betas=(0.9, 0.99), weight_decay=0.01
    )
    done = _restore(work / "flow.pt", network, average, optimizer)
    nets = Nets(student=backbone, teacher=backbone, ema=backbone)
    for step in counted(range(done, recipe.flow_steps), "training the transformer"):
        for group in optimizer.param_groups:
            group["lr"] = recipe.flow_learning_rate * _rate(step, recipe)
        loss = _fit(nets, corpus, recipe, step, backbone.latent_shape())
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        decay = min(AVERAGE_DECAY, 1 - 1 / (0.1 * step + 1.1))
        torch._foreach_lerp_(average, [weight.detach() for weight in network.parameters()], 1 - decay)
        if step % 100 == 0:
            report(f"flow matching {step}/{recipe.flow_steps}: {loss:.4f}")
        if (step + 1) % SAVE_EVERY == 0:
            _save(work / "flow.pt", step + 1, network, average, optimizer)
    with torch.no_grad():
        for weight, mean in zip(network.parameters(), average, strict=True):
            weight.copy_(mean)
    network.requires_grad_(False)


def _fit(nets: Nets, corpus: Corpus, recipe: "Recipe", step: int, shape: tuple[int, int, int]) -> float:
    """Add the gradient of one step's loss; all its randomness comes from the seed and the step."""
    batch = corpus.batch(step, recipe.flow_batch, recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed * 7_919 + step)
    dropped = torch.rand(recipe.flow_batch, generator=generator) < CAPTION_DROPOUT
    batch = replace(batch, c=batch.c.drop(dropped, batch.null))
    draw = OBJECTIVE.draw((recipe.flow_batch, *shape), generator)
    with fast_attention(draw.noises[0].device):
        (loss,) = OBJECTIVE.terms(nets, batch, draw, step)
        loss.value.backward()
    return loss.value.item()


def _rate(step: int, recipe: "Recipe") -> float:
    return min(1.0, (step + 1) / WARMUP, (recipe.flow_steps - step) / recipe.flow_decay_steps)


def _corpus(backbone: Backbone, recipe: "Recipe", path: Path) -> Corpus:
    """Latents of freshly drawn scenes; kept in the work folder."""
    counts = {task: round(share * recipe.flow_pictures) for task, share in SHARES.items()}
    captions = draw_captions(counts, held_out=False, seed=1)
    distinct, rows = index_prompts([caption.text for caption in captions])
    if not path.is_file():
        latents = [
            backbone.encode_image(to_tensor(draw_pictures(captions[start : start + CHUNK], seed=start)))
            for start in counted(range(0, len(captions), CHUNK), "drawing and encoding pictures")
        ]
        save_whole(torch.cat(latents), path)
    conditions = backbone.encode_text_in_chunks(distinct, CHUNK)
    return Corpus(distinct, conditions, rows, backbone.encode_text([""]), torch.load(path, weights_only=True))


def _save(path: Path, step: int, network: Any, average: list[Tensor], optimizer: torch.optim.Optimizer) -> None:
    state = {
        "step": step,
        "network": network.state_dict(),
        "average": average,
        "optimizer": optimizer.state_dict(),
    }
    save_whole(state, path)


def save_whole(content: Any, path: Path) -> None:
    """torch.save under another name, then rename: the file is complete or absent."""
    torch.save(content, path.with_suffix(".partial"))
    os.replace(path.with_suffix(".partial"), path)


def _restore(path: Path, network: Any, average: list[Tensor], optimizer: torch.optim.Optimizer) -> int:
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    for kept, saved in zip(average, state["average"], strict=True):
        kept.copy_(saved)
    return int(state["step"])
