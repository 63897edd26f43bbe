"""Captions, mixtures and streams: functions of the seed, exact in their shares, and resumed at the very record."""

from itertools import islice

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from apexgen.config import validate
from apexgen.data import Record, open_source
from apexgen.data.mixture import TURNS, Turns
from apexgen.data.stream import Stream, open_stream
from stored import picture, write_tar
from test_sources import opened


def prompts(folder, name, count):
    (folder / name).write_text("\n".join(f"{name} {number}" for number in range(count)))
    return {"source": str(folder / name)}


def mixed(*shares, seed=0, **settings):
    return open_source(validate({"data": {"mixture": shares, **settings}}).data, seed=seed)


def tars(folder, shards=(7, 5, 9)):
    folder.mkdir()
    for shard, count in enumerate(shards):
        files = [(f"{n}.{end}", content) for n in range(count) for end, content in (("png", picture(n)), ("txt", b"a"))]
        write_tar(folder / f"{shard}.tar", files)
    return opened(folder)


def table(folder, count=21):
    columns = {"text": [str(n) for n in range(count)], "image_bytes": [picture(n) for n in range(count)]}
    parquet.write_table(pa.table(columns), folder / "a.parquet", row_group_size=4)
    return opened(folder / "a.parquet")


def keys(stream, count):
    return [record.key for record, _ in islice(stream, count)]


def test_a_caption_is_a_function_of_seed_epoch_and_key():
    records = [Record(f"{number}", ("a", "b", "c"), (0.6, 0.3, 0.1), None) for number in range(4000)]
    drawn = [record.caption(0, 0) for record in records]
    assert drawn == [record.caption(0, 0) for record in records]
    assert drawn != [record.caption(1, 0) for record in records] and drawn != [
        record.caption(0, 1) for record in records
    ]
    for text, share in zip("abc", (0.6, 0.3, 0.1), strict=True):
        assert abs(drawn.count(text) / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5
    # Known answers: they must not change between versions, processes and machines.
    assert "".join(Record("k", ("a", "b"), (0.5, 0.5), None).caption(0, epoch) for epoch in range(12)) == KNOWN


KNOWN = "aaaaabaabbab"


@pytest.mark.parametrize("weights", [(7, 2, 1), (1,), (0.5, 0.5), (1, 1, 1), (1e-3, 1)])
def test_turns_have_exact_shares_and_are_a_function_of_the_seed(weights):
    turns = Turns(weights, 3)
    first = [turns[place] for place in range(TURNS)]
    for number, weight in enumerate(weights):
        assert abs(first.count(number) - TURNS * weight / sum(weights)) <= 1
        share = weight / sum(weights)
        assert abs(first[:1000].count(number) - 1000 * share) <= 4.5 * (1000 * share * (1 - share)) ** 0.5
    again, other = Turns(weights, 3), Turns(weights, 4)
    assert again[TURNS] in range(len(weights)) and [again[place] for place in range(TURNS)] == first
    if len(weights) > 1:
        assert [other[place] for place in range(TURNS)] != first
        assert [turns[place] for place in range(TURNS, 2 * TURNS)] != first


def test_a_mixture_keeps_its_shares_until_one_has_no_more(tmp_path):
    big, small = prompts(tmp_path, "big.txt", 900), prompts(tmp_path, "small.txt", 100)
    shares = ({**big, "weight": 3.0}, small)
    records = list(mixed(*shares))
    of_small = [record for record in records if record.captions[0].startswith("small")]
    assert len(of_small) == 100 and abs(len(records) - 400) < 80
    assert len({record.key for record in records}) == len(records)
    assert list(mixed(*shares)) == records and list(mixed(*shares).records(77)) == records[77:]
    assert list(mixed(*shares, seed=1)) != records
    assert list(mixed(*shares, limit=50)) == records[:50]
    assert str(mixed(*shares)).startswith("a mixture: 75.0% of ")


def test_sources_of_a_mixture_have_their_own_columns_and_bad_records_count_together(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"x": "a", "n": 1}\n{"x": "b", "n": 2}\n{"x": "", "n": 3}\n')
    (tmp_path / "b.jsonl").write_text('{"y": "c"}\n{"y": "d"}\n')
    one = {"source": str(tmp_path / "a.jsonl"), "captions": "x", "filter": {"n": {"minimum": 2}}}
    source = mixed(one, {"source": str(tmp_path / "b.jsonl"), "captions": "y"}, bad_limit=1)
    assert {record.captions[0] for record in source} <= {"b", "c", "d"}
    assert source.skipped.why == {"a.jsonl:2": "it has no caption"}


def test_a_mixed_stream_keeps_its_shares_for_ever_and_a_small_source_comes_again(tmp_path):
    source = mixed({**prompts(tmp_path, "big.txt", 5000), "weight": 4}, prompts(tmp_path, "small.txt", 10))
    drawn = [record.captions[0] for record, _ in islice(open_stream(source, 0), TURNS)]
    small = [text for text in drawn if text.startswith("small")]
    assert len(small) == TURNS // 5
    assert all(len(set(small[first : first + 10])) == 10 for first in range(0, len(small), 10))


@pytest.mark.parametrize("make", [tars, lambda folder: table(folder.parent)], ids=["tars", "parquet"])
@pytest.mark.parametrize("block", [1, 4, 100])
def test_every_record_comes_once_an_epoch_in_another_order(tmp_path, make, block):
    source = make(tmp_path / "s")
    every = {record.key: record for record in source}
    drawn = list(islice(Stream(source, 5, block=block), 63))
    epochs = [[record.key for record, _ in drawn[first : first + 21]] for first in (0, 21, 42)]
    assert all(sorted(epoch) == sorted(every) for epoch in epochs)
    assert all(record == every[record.key] for record, _ in drawn)  # with its own picture, though read out of order
    if block > 1:
        assert len({tuple(epoch) for epoch in epochs}) == 3
    assert keys(Stream(source, 5, block=block), 63) == [record.key for record, _ in drawn]
    assert block == 1 or keys(Stream(source, 6, block=block), 63) != [record.key for record, _ in drawn]


@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_share_an_epoch_and_none_sees_what_another_sees(tmp_path, world):
    source = tars(tmp_path / "s")
    whole = keys(Stream(source, 0, block=4), 15 * world)
    ranks = [keys(Stream(source, 0, rank, world, block=4), 15) for rank in range(world)]
    assert [key for step in zip(*ranks, strict=True) for key in step] == whole


@pytest.mark.parametrize("taken", [0, 1, 3, 4, 5, 20, 21, 22, 50])
def test_a_resumed_stream_gives_the_very_records_that_come_next(tmp_path, taken):
    source = tars(tmp_path / "s")
    whole = list(islice(Stream(source, 2, block=4), 80))
    stream = Stream(source, 2, block=4)
    list(islice(stream, taken))
    resumed = Stream(source, 2, block=4)
    resumed.load_state_dict(stream.state_dict())
    assert list(islice(resumed, 80 - taken)) == whole[taken:]


def test_a_stream_is_resumed_with_another_number_of_ranks(tmp_path):
    source = tars(tmp_path / "s")
    whole = keys(Stream(source, 2, block=4), 60)
    streams = [Stream(source, 2, rank, 3, block=4) for rank in range(3)]
    for stream in streams:
        keys(stream, 8)
    for stream in streams:  # any rank's position serves
        resumed = [Stream(source, 2, rank, 2, block=4) for rank in range(2)]
        for other in resumed:
            other.load_state_dict(stream.state_dict())
        assert [key for step in zip(*(keys(r, 18) for r in resumed), strict=True) for key in step] == whole[24:]


def test_a_resumed_mixed_stream_goes_on(tmp_path):
    def fresh():
        return open_stream(mixed({**prompts(tmp_path, "a.txt", 30), "weight": 2}, prompts(tmp_path, "b.txt", 7)), 1)

    whole, stream, resumed = keys(fresh(), 200), fresh(), fresh()
    keys(stream, 90)
    resumed.load_state_dict(stream.state_dict())
    assert keys(resumed, 110) == whole[90:]


def test_a_stateful_loader_resumes_a_stream(tmp_path):
    from torchdata.stateful_dataloader import StatefulDataLoader

    source = tars(tmp_path / "s")

    def loader():
        return StatefulDataLoader(Stream(source, 0, block=4), batch_size=4, collate_fn=list)

    whole, first, second = list(islice(loader(), 12)), loader(), loader()
    list(islice(first, 5))
    second.load_state_dict(first.state_dict())
    assert list(islice(second, 7)) == whole[5:]


def test_a_stream_of_nothing_is_told(tmp_path):
    (tmp_path / "p.txt").write_text("\n")
    with pytest.raises(ValueError, match="has no records"):
        next(iter(Stream(opened(tmp_path / "p.txt"), 0)))
