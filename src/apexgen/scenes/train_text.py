"""Train the tiny text encoder to understand its captions: from the last token, what each request asks for.

Nothing of the pictures is seen; the heads are thrown away, and what stays is an encoder whose states bind colors,
counts and relations to shapes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from apexgen.scenes.pipeline import TEXT_WIDTH, TOKENS
from apexgen.scenes.prompts import TASKS, Caption, Request, captions
from apexgen.scenes.world import COLORS, RELATIONS, SHAPES

PER_TASK = 32  # captions of each task in a batch
SIZES = (
    len(SHAPES) + 1,
    len(COLORS) + 1,
    5,
    len(RELATIONS) + 1,
) * 2  # classes of each answer, two requests


def train_text(encoder: Any, tokenizer: Any, steps: int, seed: int, report: Callable[[str], None]) -> None:
    """Fit the encoder with linear heads on the end token, by cross-entropy on every answer."""
    groups = [captions(task, held_out=False) for task in TASKS]
    encoded = [(*_tokens(tokenizer, group), torch.tensor([answers(c) for c in group])) for group in groups]
    generator = torch.Generator().manual_seed(seed)
    heads = nn.Linear(TEXT_WIDTH, sum(SIZES))
    weights = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=2e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        chosen = [torch.randint(len(group), (PER_TASK,), generator=generator) for group in groups]
        ids, mask, truth = (
            torch.cat([part[rows] for part, rows in zip(column, chosen, strict=True)])
            for column in zip(*encoded, strict=True)
        )
        states = encoder(ids, attention_mask=mask)[0]
        guesses = heads(states[torch.arange(len(ids)), mask.sum(1) - 1]).split(SIZES, 1)
        loss = torch.stack([cross_entropy(g, truth[:, k]) for k, g in enumerate(guesses)]).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            report(f"text encoder {step}/{steps}: {loss.item():.4f}")


def answers(caption: Caption) -> list[int]:
    """Class numbers of shape, color, count and relation for the first and the second request; 0 is none."""
    second = caption.requests[1] if len(caption.requests) > 1 else None
    return [*_answer(caption.requests[0]), *_answer(second)]


def _answer(request: Request | None) -> list[int]:
    if request is None:
        return [0, 0, 0, 0]
    color = 1 + list(COLORS).index(request.color) if request.color else 0
    relation = 1 + RELATIONS.index(request.relation) if request.relation else 0
    return [1 + SHAPES.index(request.shape), color, request.count, relation]


def _tokens(tokenizer: Any, group: list[Caption]) -> tuple[Tensor, Tensor]:
    texts = [caption.text for caption in group]
    encoded = tokenizer(texts, padding="max_length", max_length=TOKENS, return_tensors="pt")
    return encoded.input_ids, encoded.attention_mask
