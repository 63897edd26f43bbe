"""Train the tiny text encoder: the state of each shape's word is the sum of codes of what is said of it.

    state = code(shape) + code(color) + code(count) + code(side)

The codes are fixed and orthogonal, so that a combination never read in training has a state that is the sum of known
ones; classifying instead leaves combinations entangled. The end token carries both requests, the second in codes of
its own. Nothing of the pictures is seen.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from apexgen.progress import counted
from apexgen.rules import RELATIONS, TASKS
from apexgen.scenes.pipeline import TEXT_WIDTH, TOKENS
from apexgen.scenes.prompts import Caption, Request, captions, plural
from apexgen.scenes.world import COLORS, SHAPES

PER_TASK = 32  # captions of each task in a batch
DECAYS = {"shared": 5.0, "DenseReluDense": 1.0}  # of words' vectors and what is done at each: they learn by heart
DECAY = 0.1  # of attention, which binds what is said to the word it is said of
ANSWERS = (*SHAPES, *COLORS, 1, 2, 3, 4, *RELATIONS)  # whatever can be said of a request
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def codes(seed: int) -> Tensor:
    """Orthogonal codes of length 6: (2, len(ANSWERS), TEXT_WIDTH), for the first and the second request."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(TEXT_WIDTH, TEXT_WIDTH, generator=generator))
    return 6 * basis[: 2 * len(ANSWERS)].unflatten(0, (2, -1))


def train_text(encoder: Any, tokenizer: Any, steps: int, seed: int, report: Callable[[str], None]) -> None:
    """Fit the words of shapes and the end token to their sums of codes, by least squares."""
    groups = [encode_captions(captions(task, held_out=False), tokenizer, seed) for task in TASKS]
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        [
            {"params": [weight], "weight_decay": next((DECAYS[part] for part in DECAYS if part in name), DECAY)}
            for name, weight in encoder.named_parameters()
        ],
        lr=2e-3,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in counted(range(steps), "training the text encoder"):
        rows = [torch.randint(len(group[0]), (PER_TASK,), generator=generator) for group in groups]
        drawn = [[part[chosen] for part in group] for group, chosen in zip(groups, rows, strict=True)]
        loss = mismatch(encoder, *(torch.cat(parts) for parts in zip(*drawn, strict=True)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            report(f"text encoder {step}/{steps}: {loss.item():.4f}")


def mismatch(encoder: Any, ids: Tensor, mask: Tensor, places: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of the states at `places` (B, 3) against `targets` (B, 3, TEXT_WIDTH)."""
    states = encoder(ids, attention_mask=mask)[0]
    return (states[torch.arange(len(ids))[:, None], places] - targets).square().mean()


def encode_captions(group: list[Caption], tokenizer: Any, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, mask, the places of both requests' words and of the end token, and the states wanted there.

    Where there is no second request, its place is the end token's.
    """
    texts = [caption.text for caption in group]
    encoded = tokenizer(texts, padding="max_length", max_length=TOKENS, return_tensors="pt")
    table = codes(seed)
    places, targets = zip(*[_wanted(caption, table) for caption in group], strict=True)
    return encoded.input_ids, encoded.attention_mask, torch.tensor(places), torch.stack(targets)


def _wanted(caption: Caption, table: Tensor) -> tuple[list[int], Tensor]:
    words = caption.text.split()
    end = len(words) + 1  # after the start token and the words
    sides = _sides(caption)
    said = [_said(request, side) for request, side in zip(caption.requests, sides, strict=True)]
    both = sum((table[k, answers].sum(0) for k, answers in enumerate(said)), torch.zeros(TEXT_WIDTH))
    places, targets = [end] * 3, [both] * 3
    for k, request in enumerate(caption.requests):
        places[k] = 1 + next(i for i, word in enumerate(words) if word in (request.shape, plural(request.shape)))
        targets[k] = table[0, said[k]].sum(0)
    return places, torch.stack(targets)


def _sides(caption: Caption) -> list[str | None]:
    """The side of each request: a landmark is on the subject's other side, the first named of a pair on the left."""
    if len(caption.requests) == 1:
        return [None]
    relation = caption.requests[-1].relation or "right of"
    return [OPPOSITE[relation], relation]


def _said(request: Request, side: str | None) -> list[int]:
    said = (request.shape, request.color, request.count, side)
    return [ANSWERS.index(answer) for answer in said if answer is not None]
