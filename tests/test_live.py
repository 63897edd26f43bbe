"""Records encoded at the step: the batch of a step whenever it is asked for, and every record once an epoch."""

import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from rich.console import Console

from apexgen.config import Data, validate
from apexgen.data.tables import TableSource
from apexgen.distill import distill
from apexgen.encode import encode, live
from corpora import opened, same
from small import short_run
from stored import picture, write_tar


def test_a_step_is_the_same_after_a_resume_and_from_memory(net, pictures, monkeypatch):
    monkeypatch.setattr(live, "BLOCK", 4)  # of six records: blocks lie across epochs
    going_on = opened(net, pictures, flip=True, drop_captions=0.3)
    batches = [going_on.batch(step, 3, 0) for step in range(9)]
    for step in (0, 5, 8):
        same(opened(net, pictures, flip=True, drop_captions=0.3).batch(step, 3, 0), batches[step])
    part, whole = going_on.batch(8, 3, 0, slice(1, 2)), batches[8]
    torch.testing.assert_close(part.x, whole.x[1:2])


def write_prompts(file, count):
    """A source of so many prompts; only one of .parquet says how many."""
    if file.suffix == ".parquet":
        parquet.write_table(pa.table({"text": [f"prompt {n}" for n in range(count)]}), file)
    else:
        file.write_text("".join(json.dumps({"text": f"prompt {n}"}) + "\n" for n in range(count)))
    return file


def prompts(net, source, **others):
    return encode(Data(source=str(source), encode="step", **others), net, pictures=False)


@pytest.mark.parametrize(("name", "count"), [("p.jsonl", 100), ("p.parquet", 1500), ("p.parquet", 2048)])
@pytest.mark.parametrize("processes", [1, 2])
def test_every_record_comes_once_an_epoch(net, tmp_path, name, count, processes):
    """By their keys, in the order in which they are taken; each process reads for itself and takes its rows."""
    file, size = write_prompts(tmp_path / name, count), 20
    streams, taken = [prompts(net, file) for _ in range(processes)], []
    for step in range(-(-3 * count // size)):
        each = [stream.names(step, size, 0) for stream in streams]
        assert all(names == each[0] for names in each)
        taken += each[0]
    epochs = [taken[first : first + count] for first in (0, count, 2 * count)]
    assert all(len(set(epoch)) == count for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] and epochs[0] != sorted(epochs[0])


def test_the_rows_of_two_processes_are_those_of_one(net, tmp_path):
    """Texts too, over the end of an epoch."""
    file = write_prompts(tmp_path / "p.jsonl", 7)
    alone, *streams = (prompts(net, file) for _ in range(3))
    for step in range(4):
        whole = alone.batch(step, 4, 0)
        parts = [stream.batch(step, 4, 0, slice(2 * rank, 2 * rank + 2)) for rank, stream in enumerate(streams)]
        for rank, part in enumerate(parts):
            mask = whole.c.mask[2 * rank : 2 * rank + 2]
            assert part.c.mask.sum() == mask.sum()
            torch.testing.assert_close(part.c.embeds[part.c.mask.bool()], whole.c.embeds[2 * rank :][:2][mask.bool()])


def test_shards_come_in_another_order_every_epoch_and_a_resumed_run_reads_on(net, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "BLOCK", 4)
    for shard, count in enumerate((7, 5, 9)):
        captions = [(f"{n}.txt", b" " if (shard, n) == (1, 2) else b"a ring") for n in range(count)]  # one has none
        members = [(f"{n}.png", picture(n)) for n in range(count)]
        write_tar(tmp_path / f"{shard}.tar", sorted(captions + members))

    def keys(first, last):
        opened_now = opened(net, tmp_path, bad_limit=0.5)
        return [name for step in range(first, last) for name in opened_now.names(step, 5, 0)]

    whole = keys(0, 16)
    epochs = [whole[first : first + 20] for first in (0, 20, 40, 60)]
    assert all(sorted(epoch) == sorted(set(whole)) and len(set(epoch)) == 20 for epoch in epochs)
    assert len({tuple(name[0] for name in epoch) for epoch in epochs}) > 1
    for first in (1, 3, 4, 9):
        assert keys(first, 16) == whole[5 * first :]


@pytest.fixture
def read(monkeypatch):
    """Every entry that tables give, as it is read."""
    entries, found = [], TableSource.found
    monkeypatch.setattr(TableSource, "found", lambda self: (entries.append(entry) or entry for entry in found(self)))
    return entries


def test_a_resumed_run_passes_over_what_was_read(net, tmp_path, read):
    """Of one file no entry is read twice; of several, whole files are passed over; the records are the same."""
    write_prompts(tmp_path / "one.jsonl", 1500)
    for number in range(15):
        write_prompts(tmp_path / f"part-{number:02}.jsonl", 100)
    for source, at_first, later in (("one.jsonl", 1500, 1500), ("part-*.jsonl", 500, 1024)):
        unbroken = prompts(net, tmp_path / source)
        expected = [unbroken.names(step, 10, 0) for step in range(320)]
        began = prompts(net, tmp_path / source)
        began.names(104, 10, 0)
        assert began.skipped.seen == 1500
        for saved, step, most in ((began, 104, at_first), (unbroken, 300, later)):
            saved.save(tmp_path)
            again = prompts(net, tmp_path / source)
            again.restore(tmp_path)
            read.clear()
            assert [again.names(step, 10, 0), again.names(step + 1, 10, 0)] == expected[step : step + 2]
            assert len(read) <= most
            assert [again.names(later, 10, 0) for later in range(step, 320)] == expected[step:]
            assert again.skipped.seen == 1500


def test_a_run_that_goes_on_ends_like_one_left_alone(tmp_path):
    """In the second epoch, bitwise; a bad record stays listed."""
    for number in range(4):
        write_prompts(tmp_path / f"part-{number}.jsonl", 3)
    with (tmp_path / "part-1.jsonl").open("a") as file:
        file.write('{"text": " "}\n')
    settings = (f"data.source={tmp_path}/part-*.jsonl", "data.encode=step", "data.bad_limit=0.2", "train.steps=10")

    def run(name, watch=None):
        short = short_run(tmp_path / name, "train.save_every=8", "train.preview_every=10", *settings)
        whole = short.model_copy(update={"data": short.data.model_copy(update={"limit": None})})
        made, _ = distill(whole, Console(quiet=True), watch)
        return {name: weight.detach() for name, weight in made.student.trained.items()}

    def stop(made):
        if made.step == 9:
            raise KeyboardInterrupt

    alone = run("alone")
    with pytest.raises(KeyboardInterrupt):
        run("stopped", stop)
    told = json.loads((tmp_path / "stopped" / "source.json").read_text())
    assert sorted(told["usable"].values()) == [3] * 4 and sorted(told["seen"].values()) == [3, 3, 3, 4]
    resumed = run("stopped")
    assert all(torch.equal(alone[name], resumed[name]) for name in alone)
    for name in ("alone", "stopped"):
        [line] = (tmp_path / name / "skipped.jsonl").read_text().splitlines()
        assert json.loads(line) == {"path": "part-1.jsonl:3", "why": "it has no caption"}


def test_what_was_read_is_known_of_the_same_source_alone(net, tmp_path):
    file = write_prompts(tmp_path / "p.jsonl", 30)
    stream = prompts(net, file)
    stream.names(3, 10, 0)
    stream.save(tmp_path)
    fewer = prompts(net, file, limit=20)  # another setting: counted anew
    fewer.restore(tmp_path)
    assert sorted(fewer.names(0, 10, 0) + fewer.names(1, 10, 0)) == sorted(set(fewer.names(0, 20, 0)))
    write_prompts(file, 29)
    changed = prompts(net, file)
    changed.restore(tmp_path)
    with pytest.raises(ValueError, match=r"p\.jsonl, a table, has 29 records .* and had 30; put it back") as caught:
        [changed.names(step, 10, 0) for step in range(4)]
    assert "\n" not in str(caught.value)


def test_a_run_encoded_before_goes_on_with_the_records_it_began_with(tmp_path):
    """A caption may be mended; one more record would change the order of all."""
    file, folder = write_prompts(tmp_path / "p.jsonl", 6), tmp_path / "run"
    settings = (f"data.source={file}", "train.preview_every=1000")

    def stop(made):
        if made.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(short_run(folder, *settings), Console(quiet=True), stop)
    write_prompts(file, 7)
    with pytest.raises(ValueError, match=r"has 7 records that can be used and had 6, or not the same; put it back"):
        distill(short_run(folder, *settings), Console(quiet=True))
    file.write_text(write_prompts(file, 6).read_text().replace("prompt 3", "a prompt"))
    assert distill(short_run(folder, *settings), Console(quiet=True))[0].step == 4


def test_a_mixture_takes_other_files_every_epoch_and_no_record_twice(net, tmp_path):
    """What the shares leave unread of a source is another part of it every epoch."""
    for number in range(4):
        write_prompts(tmp_path / f"many-{number}.jsonl", 50)
    shares = ({"source": str(tmp_path / "many-*.jsonl")}, {"source": str(write_prompts(tmp_path / "few.jsonl", 100))})
    stream = encode(validate({"data": {"mixture": shares, "encode": "step"}}).data, net, pictures=False)
    stream.names(40, 10, 0)
    count = stream.stream.length
    taken = [name for step in range(4 * count // 10 + 1) for name in stream.names(step, 10, 0)]
    epochs = [set(taken[first : first + count]) for first in range(0, 4 * count, count)]
    assert all(len(epoch) == count for epoch in epochs)
    of_many = [{name for name in epoch if name.startswith("0/")} for epoch in epochs]
    assert len(set().union(*of_many)) == 200 > max(map(len, of_many))


def test_a_source_in_memory_gives_the_same_first_epoch(net, pictures):
    stream, memory = opened(net, pictures), encode(Data(source=str(pictures)), net, pictures=True)
    for step in range(2):
        torch.testing.assert_close(stream.batch(step, 3, 0).x, memory.batch(step, 3, 0).x)


def test_steps_larger_than_blocks_read_no_record_twice(net, tmp_path, monkeypatch, read):
    monkeypatch.setattr(live, "BLOCK", 8)
    stream = prompts(net, write_prompts(tmp_path / "p.jsonl", 200))
    read.clear()
    for step in range(4):
        stream.batch(step, 40, 0)
    assert len(read) == 160


def test_where_captions_alone_are_read_nothing_that_encodes_pictures_is_held(tmp_path):
    run = short_run(tmp_path, "data.encode=step", "train.steps=2")
    trainer, _ = distill(run, Console(quiet=True))
    pipeline = trainer.student.backbone.pipeline
    assert not list(pipeline.vae.encoder.parameters()) and list(pipeline.text_encoder.parameters())
