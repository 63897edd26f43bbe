"""Tars that are damaged, or lie where a name is odd: what is good is used, and what is bad costs a line."""

import json

import pytest

from stored import picture, write_tar
from test_sources import opened


def write_tars(folder, count=4):
    """Tars of three captioned pictures each."""
    folder.mkdir(parents=True)
    for shard in range(count):
        members = [(f"{n}.{end}", content) for n in range(3) for end, content in (("jpg", picture(n)), ("txt", b"a"))]
        write_tar(folder / f"{shard}.tar", members)
    return folder


@pytest.mark.parametrize(("length", "left"), [(0, 0), (600, 0), (1300, 0), (2600, 1)])
def test_a_tar_that_is_damaged_at_its_start_costs_itself_alone(tmp_path, length, left):
    folder = write_tars(tmp_path / "tars")
    damaged = folder / "2.tar"
    damaged.write_bytes(damaged.read_bytes()[:length])
    source = opened(folder, bad_limit=0.5)
    keys = [f"{shard}.tar/{n}" for shard in range(4) for n in range(left if shard == 2 else 3)]
    assert [record.key for record in source] == keys
    assert source.skipped.why.pop("2.tar") in ("empty file", "unexpected end of data")
    assert set(source.skipped.why.values()) <= {"it has no caption"}
    source.skipped.finish()


def test_where_no_tar_can_be_read_that_is_what_is_said(tmp_path):
    folder = write_tars(tmp_path / "tars", count=2)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:600])
    for path in (folder, folder / "1.tar"):
        with pytest.raises(ValueError, match=r"^\S+/[01]\.tar can't be read: unexpected end of data$"):
            opened(path)
        with pytest.raises(ValueError, match=r"can't be read"):
            opened(path, captions="txt")


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%20b", "a::b", "pipe:b"])
def test_a_tar_lies_in_a_folder_of_any_name(tmp_path, name):
    assert len(list(opened(write_tars(tmp_path / name, count=1)))) == 3


def test_a_json_of_thousands_of_brackets_is_one_bad_record(tmp_path):
    deep = b'{"a":' * 100_000 + b"0" + b"}" * 100_000
    texts = [json.dumps({"caption": "a"}).encode(), deep, json.dumps({"caption": "b"}).encode()]
    members = [
        (f"{n}.{end}", content) for n, text in enumerate(texts) for end, content in (("jpg", b"1"), ("json", text))
    ]
    write_tar(tmp_path / "s.tar", members)
    source = opened(tmp_path / "s.tar", bad_limit=1)
    assert [record.captions for record in source] == [("a",), ("b",)]
    assert list(source.skipped.why) == ["s.tar/1"] and "can't be read" in source.skipped.why["s.tar/1"]
