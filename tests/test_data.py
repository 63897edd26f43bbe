"""Every record once an epoch, in an order that the seed, and nothing else, decides."""

import pytest
import torch

from apexgen.condition import Condition
from apexgen.data import Corpus


def corpus(records=10, prompts=10):
    """A corpus in which record i has latents full of i, and prompt p embeds full of p."""
    rows = torch.arange(records) % prompts
    embeds = torch.arange(float(prompts))[:, None, None].expand(prompts, 3, 2).clone()
    conditions = Condition(embeds, torch.ones(prompts, 3))
    null = Condition(torch.zeros(1, 3, 2), torch.ones(1, 3))
    latents = torch.arange(float(records))[:, None, None, None].expand(records, 1, 2, 2).clone()
    return Corpus([f"prompt {p}" for p in range(prompts)], conditions, rows, null, latents)


def records(batch):
    return batch.x[:, 0, 0, 0].long().tolist()


def stream(data, size, steps, seed=0):
    return [record for step in range(steps) for record in records(data.batch(step, size, seed))]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 10, 23])
def test_every_record_comes_once_an_epoch_whatever_the_batch(size):
    data = corpus(10)
    seen = stream(data, size, steps=-(-40 // size))
    for epoch in range(4):
        assert sorted(seen[10 * epoch : 10 * epoch + 10]) == list(range(10))


def test_the_stream_does_not_depend_on_the_batch_size():
    assert stream(corpus(), 3, 20) == stream(corpus(), 20, 3)


def test_each_epoch_and_each_seed_has_another_order():
    data = corpus(50)
    orders = [tuple(stream(data, 50, 4, seed)[50 * e : 50 * e + 50]) for seed in (0, 1, 2**40 - 1) for e in range(4)]
    assert len(set(orders)) == 12


def test_a_batch_is_a_function_of_its_arguments():
    data, other = corpus(), corpus()
    expected = records(other.batch(5, 4, 0))
    torch.manual_seed(99)
    stream(data, 4, 9)
    before = torch.random.get_rng_state()
    assert records(data.batch(5, 4, 0)) == expected
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("size", [3, 10, 35])
def test_every_batch_is_full(size):
    data = corpus(10)
    assert all(len(data.batch(step, size, 0).c) == size for step in range(12))


def test_latents_keep_their_conditions():
    data = corpus(records=12, prompts=5)
    for step in range(6):
        batch = data.batch(step, 4, 0)
        assert batch.c.embeds[:, 0, 0].long().tolist() == [record % 5 for record in records(batch)]


def test_without_pictures_there_are_conditions_alone():
    data = corpus()
    bare = Corpus(data.prompts, data.conditions, data.rows, data.null)
    batch = bare.batch(2, 4, 0)
    assert batch.x is None
    assert torch.equal(batch.c.embeds, data.batch(2, 4, 0).c.embeds)


def test_a_batch_may_be_changed_without_changing_the_corpus():
    data = corpus()
    data.batch(0, 4, 0).x.zero_()
    data.batch(0, 4, 0).c.embeds.zero_()
    assert sorted(stream(data, 10, 1)) == list(range(10))
    assert data.conditions.embeds.sum() > 0
