"""Records encoded at the step: the batch of a step whenever it is asked for, and every record once an epoch."""

import pytest
import torch
from rich.console import Console

from apexgen.backbones.diffusion import load_backbone
from apexgen.config import Data, validate
from apexgen.distill import distill
from apexgen.encode import encode, live
from apexgen.scenes.pipeline import FOLDER
from stored import picture, write_tar
from test_encode import pictures, same  # noqa: F401


@pytest.fixture(scope="module")
def net():
    return load_backbone(FOLDER)


def opened(net, source, **others):
    return encode(Data(source=str(source), encode="step", **others), net, pictures=True)


def test_a_step_is_the_same_after_a_resume_and_from_memory(net, pictures, monkeypatch):  # noqa: F811
    monkeypatch.setattr(live, "BLOCK", 4)  # of six records: blocks lie across epochs
    going_on = opened(net, pictures, flip=True, drop_captions=0.3)
    batches = [going_on.batch(step, 3, 0) for step in range(9)]
    for step in (0, 5, 8):
        same(opened(net, pictures, flip=True, drop_captions=0.3).batch(step, 3, 0), batches[step])
    part, whole = going_on.batch(8, 3, 0, slice(1, 2)), batches[8]
    torch.testing.assert_close(part.x, whole.x[1:2])


def test_every_record_comes_once_an_epoch(net, pictures, monkeypatch):  # noqa: F811
    monkeypatch.setattr(live, "BLOCK", 4)
    stream = opened(net, pictures)
    places = torch.cat([stream.records(step, 3, 0) for step in range(8)])  # 24 places, six blocks
    assert sorted(places.tolist()) == list(range(24)) and places.tolist() != list(range(24))
    keys = [stream._block(place // 4)[place % 4].key for place in sorted(places.tolist())]
    assert keys == sorted(set(keys)) * 4


def test_shards_come_in_another_order_every_epoch_and_a_resumed_run_reads_on(net, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "BLOCK", 4)
    for shard, count in enumerate((7, 5, 9)):
        captions = [(f"{n}.txt", b" " if (shard, n) == (1, 2) else b"a ring") for n in range(count)]  # one has none
        members = [(f"{n}.png", picture(n)) for n in range(count)]
        write_tar(tmp_path / f"{shard}.tar", sorted(captions + members))

    def keys(first, last):
        opened_now = opened(net, tmp_path, bad_limit=0.5)
        return [opened_now._block(place // 4)[place % 4].key for place in range(first, last)]

    whole = keys(0, 80)
    epochs = [whole[first : first + 20] for first in (0, 20, 40, 60)]
    assert all(sorted(epoch) == sorted(set(whole)) and len(set(epoch)) == 20 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    for first in (1, 19, 20, 45):
        assert keys(first, 80) == whole[first:]


def test_a_source_in_memory_gives_the_same_first_epoch(net, pictures):  # noqa: F811
    stream, memory = opened(net, pictures), encode(Data(source=str(pictures)), net, pictures=True)
    for step in range(2):
        torch.testing.assert_close(stream.batch(step, 3, 0).x, memory.batch(step, 3, 0).x)


def test_a_bad_picture_gives_its_place_to_the_next(net, pictures, tmp_path):  # noqa: F811
    import shutil

    source = shutil.copytree(pictures, tmp_path / "source")
    (source / "2.png").write_bytes(b"no picture")
    stream = opened(net, source, bad_limit=0.5)
    first, again = (opened(net, source, bad_limit=0.5).batch(0, 6, 0) for _ in range(2))
    same(first, again)
    assert stream.batch(0, 6, 0).x.isfinite().all() and list(stream.source.skipped.why) == ["2.png"]
    for place in range(6):
        (source / f"{place}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="no picture of 6 records in a row can be read"):
        opened(net, source, bad_limit=1.0).batch(0, 2, 0)


@pytest.mark.parametrize("when", ["start", "step"])
def test_a_run_lists_what_it_left_out(pictures, tmp_path, when):  # noqa: F811
    import json
    import shutil

    source = shutil.copytree(pictures, tmp_path / "source")
    (source / "2.png").write_bytes(b"no picture")
    data = {"source": str(source), "encode": when, "bad_limit": 0.5}
    steps = {"steps": 2, "batch": 6, "save_every": 1, "preview_every": 2, "preview_prompts": 1}
    objective = {"name": "flow_matching"}
    run = validate({"folder": str(tmp_path / "run"), "objective": objective, "data": data, "train": steps})
    distill(run, Console(quiet=True))
    [line] = (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == "2.png"
