"""The order of records: whole batches of one bucket, every record once an epoch, the same whenever it is asked for."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apexgen.data.order import Order
from apexgen.data.sizes import bucket_sizes, nearest_size
from apexgen.size import Size

mixes = st.lists(st.integers(0, 4), min_size=1, max_size=60)
sizes = st.integers(1, 9)


def steps_of(counts, epochs, size):
    """The steps that an Order takes in so many epochs."""
    return sum(epochs * count // size for count in counts.values())


@settings(max_examples=60, deadline=None)
@given(mix=mixes, size=sizes, seed=st.integers(0, 5), epochs=st.integers(1, 4))
def test_batches_are_full_and_of_one_bucket_and_epochs_lose_nothing(mix, size, seed, epochs):
    buckets, counts = torch.tensor(mix), Counter(mix)
    order, seen = Order(buckets), Counter()
    for step in range(steps_of(counts, epochs, size)):
        records = order.records(step, size, seed).tolist()
        assert len(records) == size and len({mix[record] for record in records}) == 1
        seen.update(records)
    for bucket, count in counts.items():
        times = [seen[record] for record in range(len(mix)) if mix[record] == bucket]
        left = epochs * count % size  # what did not fill a batch: the first of the next epoch
        full, cut = divmod(epochs * count - left, count)
        assert sorted(times) == [full] * (count - cut) + [full + 1] * cut


@settings(max_examples=30, deadline=None)
@given(mix=mixes, size=sizes, steps=st.lists(st.integers(0, 40), min_size=2, max_size=6))
def test_a_step_is_the_same_whatever_was_asked_before(mix, size, steps):
    used = Order(torch.tensor(mix))
    for step in steps:
        assert used.records(step, size, 3).equal(Order(torch.tensor(mix)).records(step, size, 3))


def test_buckets_with_fewer_records_than_a_batch_are_told_of():
    """Their batches hold a record of theirs several times."""
    order = Order(torch.tensor([0] * 40 + [1] + [2] * 8 + [4] * 3))
    assert order.scarce(8) == [1, 3] and order.scarce(1) == [] and order.scarce(41) == [40, 1, 8, 3]
    batches = [order.records(step, 8, 0).tolist() for step in range(60)]
    assert [40] * 8 in batches and all(len(set(batch)) == 8 for batch in batches if max(batch) < 40)


def test_seeds_and_epochs_differ_and_buckets_take_turns():
    mix = torch.tensor([0, 1] * 40)
    turns = [[int(mix[Order(mix).records(step, 4, seed)[0]]) for step in range(20)] for seed in (0, 1)]
    assert turns[0] != turns[1] and sorted(turns[0]) == sorted(turns[1])
    assert turns[0] not in ([0] * 10 + [1] * 10, [0, 1] * 10)
    order = Order(torch.zeros(20, dtype=torch.int64))
    assert sorted(order.records(0, 20, 0).tolist()) == sorted(order.records(1, 20, 0).tolist()) == list(range(20))
    assert not order.records(0, 20, 0).equal(order.records(1, 20, 0))


@given(size=st.integers(4, 64), multiple=st.sampled_from([8, 16, 32]), aspect=st.floats(1.0, 4.0))
def test_sizes_have_one_area_and_a_square_first(size, multiple, aspect):
    side = size * multiple
    found = bucket_sizes(Size(side, side), multiple, aspect)
    assert found[0] == (side, side) and len(set(found)) == len(found)
    for height, width in found:
        assert height % multiple == width % multiple == 0
        assert max(height, width) <= aspect * min(height, width)
        assert abs(height * width - side * side) <= multiple / 2 * min(height, width)
        assert (width, height) in found


def test_a_models_own_size_that_is_no_square_is_the_only_one_or_one_of_its_area():
    own = Size(32, 128)
    assert bucket_sizes(own, 16, 1.0) == [own]
    found = bucket_sizes(own, 16, 2.0)
    assert found[0] == (64, 64) and own in found and (48, 80) in found


@pytest.mark.parametrize(("sides", "size"), [((50, 50), (64, 64)), ((900, 1600), (48, 80)), ((10, 1), (80, 48))])
def test_a_picture_gets_the_size_of_its_shape(sides, size):
    assert nearest_size(sides, bucket_sizes(Size(64, 64), 16, 2.0)) == size


def test_a_side_is_never_longer_than_the_model_has_places_for():
    longest = [max(max(size) for size in bucket_sizes(Size(512, 512), 64, 4.0, largest)) for largest in (768, None)]
    assert longest == [704, 1024]
