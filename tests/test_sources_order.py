"""Mixtures: functions of the seed, exact in their shares."""

import pytest

from apexgen.config import validate
from apexgen.data import open_source
from apexgen.data.mixture import TURNS, Turns


def prompts(folder, name, count):
    (folder / name).write_text("\n".join(f"{name} {number}" for number in range(count)))
    return {"source": str(folder / name)}


def mixed(*shares, seed=0, **settings):
    return open_source(validate({"data": {"mixture": shares, **settings}}).data, seed=seed)


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


def test_a_source_that_would_never_be_drawn_from_is_refused():
    with pytest.raises(ValueError, match=r"data\.mixture\.1\.weight = 0\.1: .* one in 10,000; write 1\.1, or remove"):
        Turns([10_000.0, 0.1, 1_000.0], 0)
    assert 1 in {Turns([10_000.0, 1.1, 1_000.0], 0)[place] for place in range(10_000)}


def test_a_source_that_has_nothing_is_refused_and_does_not_end_the_others(tmp_path):
    (tmp_path / "none.jsonl").write_text('{"text": "a", "score": 1}\n')
    nothing = {"source": str(tmp_path / "none.jsonl"), "filter": {"score": {"minimum": 2}}}
    with pytest.raises(ValueError, match=r"data\.mixture\.1: .*none\.jsonl, a table, has no records that can be used"):
        next(mixed({**prompts(tmp_path, "big.txt", 900), "weight": 5000.0}, nothing).entries())  # before its turn


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
    assert source.skipped.why == {"0/a.jsonl:2": "it has no caption"}
