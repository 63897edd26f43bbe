"""Train the tiny text encoder to understand its captions: each shape's word must know its color, count and side.

The end token must know all of it. Nothing of the pictures is seen; the heads are thrown away, and what stays is an
encoder whose words bind what belongs together.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from apexgen.scenes.pipeline import TEXT_WIDTH, TOKENS
from apexgen.scenes.prompts import TASKS, Caption, Request, captions, plural
from apexgen.scenes.world import COLORS, RELATIONS, SHAPES

PER_TASK = 32  # captions of each task in a batch
SIZES = (len(SHAPES) + 1, len(COLORS) + 1, 5, len(RELATIONS) + 1)  # classes of shape, color, count and side; 0 is none
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def train_text(encoder: Any, tokenizer: Any, steps: int, seed: int, report: Callable[[str], None]) -> None:
    """Fit the encoder, with linear heads on the words of shapes and on the end token, by cross-entropy."""
    groups = [_encode(captions(task, held_out=False), tokenizer) for task in TASKS]
    generator = torch.Generator().manual_seed(seed)
    of_word, of_end = nn.Linear(TEXT_WIDTH, sum(SIZES)), nn.Linear(TEXT_WIDTH, 2 * sum(SIZES))
    weights = [*encoder.parameters(), *of_word.parameters(), *of_end.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=2e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        rows = [torch.randint(len(group[0]), (PER_TASK,), generator=generator) for group in groups]
        drawn = [[part[chosen] for part in group] for group, chosen in zip(groups, rows, strict=True)]
        ids, mask, words, answers = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        states = encoder(ids, attention_mask=mask)[0]
        row = torch.arange(len(ids))
        end = of_end(states[row, mask.sum(1) - 1]).unflatten(1, (2, -1))
        named = torch.stack([of_word(states[row, words[:, k]]) for k in range(2)], dim=1)
        loss = _mismatch(end, answers) + _mismatch(named, answers)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            report(f"text encoder {step}/{steps}: {loss.item():.4f}")


def _mismatch(guesses: Tensor, answers: Tensor) -> Tensor:
    """Cross-entropy summed over answers; guesses (B, 2, classes), answers (B, 2, 4)."""
    columns = guesses.flatten(0, 1).split(SIZES, 1)
    truth = answers.flatten(0, 1)
    return torch.stack([cross_entropy(guess, truth[:, k]) for k, guess in enumerate(columns)]).sum()


def _encode(group: list[Caption], tokenizer: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, mask, the place of each request's word (the end token for a missing one), and the answers."""
    texts = [caption.text for caption in group]
    encoded = tokenizer(texts, padding="max_length", max_length=TOKENS, return_tensors="pt")
    places = [[_place(caption, k) for k in range(2)] for caption in group]
    return encoded.input_ids, encoded.attention_mask, torch.tensor(places), torch.tensor([_answers(c) for c in group])


def _place(caption: Caption, request: int) -> int:
    words = caption.text.split()
    if request >= len(caption.requests):
        return len(words) + 1  # the end token, after the start token and the words
    shape = caption.requests[request].shape
    return 1 + next(index for index, word in enumerate(words) if word in (shape, plural(shape)))


def _answers(caption: Caption) -> list[list[int]]:
    """Class numbers of shape, color, count and side of both requests; a landmark is on the subject's other side."""
    first, *rest = caption.requests
    if not rest:
        return [_answer(first, None), [0, 0, 0, 0]]
    relation = rest[0].relation
    return [_answer(first, OPPOSITE[relation] if relation else None), _answer(rest[0], relation)]


def _answer(request: Request, side: str | None) -> list[int]:
    color = 1 + list(COLORS).index(request.color) if request.color else 0
    return [1 + SHAPES.index(request.shape), color, request.count, 1 + RELATIONS.index(side) if side else 0]
