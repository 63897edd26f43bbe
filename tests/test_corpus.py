"""What a corpus gives a step: captions drawn by weight, dropped and mirrored by share; rows of a whole batch."""

from collections import Counter

import pytest
import torch

from apexgen.data.corpus import Corpus


def corpus_of(**fields):
    """Eight records with two captions each, the first drawn three times of four; row r of all columns is full of r."""
    from apexgen.condition import Condition

    rows = torch.arange(16).reshape(8, 2)
    c = Condition(torch.arange(16.0)[:, None, None].expand(16, 3, 2), torch.ones(16, 3, dtype=torch.bool))
    null = Condition(torch.full((1, 3, 2), -1.0), torch.ones(1, 3, dtype=torch.bool))
    weights = torch.tensor([[0.75, 0.25]] * 7 + [[1.0, 0.0]])
    return Corpus([""] * 16, c, rows, null, torch.arange(16.0)[:, None, None, None], weights, **fields)


def test_captions_are_drawn_by_weight_dropped_and_mirrored_by_share():
    corpus, seen = corpus_of(drop=0.2, flip=True), Counter()
    for step in range(500):
        batch = corpus.batch(step, 8, 0)
        for caption, latent in zip(batch.c.embeds[:, 0, 0].tolist(), batch.x.flatten().tolist(), strict=True):
            assert caption == -1 or caption // 2 == latent % 8
            seen.update(["dropped" if caption == -1 else f"caption {caption % 2:.0f}"])
            seen.update(["mirrored"] * (latent >= 8) + ["unseen"] * (caption == 15))
    assert seen["unseen"] == 0
    for name, share in (("dropped", 0.2), ("mirrored", 0.5), ("caption 1", 0.8 * 0.25 * 7 / 8)):
        assert seen[name] / 4000 == pytest.approx(share, abs=0.03)


def test_rows_of_a_batch_are_those_of_the_whole():
    corpus = corpus_of(drop=0.2, flip=True)
    whole, part = corpus.batch(3, 8, 1), corpus.batch(3, 8, 1, slice(2, 5))
    assert torch.equal(part.x, whole.x[2:5]) and torch.equal(part.c.embeds, whole.c.embeds[2:5])
