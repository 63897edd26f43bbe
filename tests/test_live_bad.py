"""Bad records that are found at the step: passed over in full batches, listed, judged among all processes."""

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from apexgen import checkpoint
from apexgen.config import validate
from apexgen.distill import distill, encode_run
from apexgen.encode import encode, live
from apexgen.encode.fill import decode, to_latents
from corpora import opened, same
from small import short_run
from stored import write_folder
from together import begin, command, end


def write_with_bad(folder, count, bad):
    """A folder of so many captioned pictures, some of which can't be read."""
    write_folder(folder, {f"{number:02}": f"a ring {number}" for number in range(count)})
    for number in bad:
        (folder / f"{number:02}.png").write_bytes(b"no picture")
    return folder


def together_read(streams, step, size):
    """The keys of a step, as processes that tell one another what was bad find them: the same in all."""
    each = size // len(streams)
    asked = [(step, size, 0, slice(rank * each, (rank + 1) * each)) for rank in range(len(streams))]
    new = True
    while new:
        for stream, own in zip(streams, asked, strict=True):
            stream.look(*own)
        told = [stream.skipped.tell() for stream in streams]
        new = any([stream.skipped.hear(told) for stream in streams])
    [names] = {tuple(stream.names(step, size, 0)) for stream in streams}
    return list(names)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_bad_picture_is_passed_over_and_none_comes_twice(net, tmp_path, monkeypatch, processes):
    """Whichever process finds it, also where it is found anew in later epochs, and after a resume."""
    monkeypatch.setattr(live, "BLOCK", 8)
    source = write_with_bad(tmp_path / "source", 23, bad := (0, 1, 7, 8, 15, 16, 22))
    good = sorted(f"{number:02}.png" for number in range(23) if number not in bad)
    streams, taken = [opened(net, source, bad_limit=0.5) for _ in range(processes)], []
    for step in range(8):
        taken += together_read(streams, step, 6)
        streams[0].save(tmp_path / f"after-{step}")
    epochs = [taken[first : first + len(good)] for first in (0, 16, 32)]
    assert all(sorted(epoch) == good for epoch in epochs) and epochs[0] != epochs[1] != epochs[2]
    for known, step in ((1, 2), (4, 5), (7, 3), (7, 6)):  # what is known may be of later steps too
        again = [opened(net, source, bad_limit=0.5) for _ in range(processes)]
        for stream in again:
            stream.restore(tmp_path / f"after-{known}")
        assert [name for later in range(step, 8) for name in together_read(again, later, 6)] == taken[6 * step :]


def test_a_step_with_a_bad_picture_is_a_full_batch_of_the_others(net, tmp_path):
    source = write_with_bad(tmp_path / "source", 6, (2,))
    first, again = (opened(net, source, bad_limit=0.5).batch(0, 5, 0) for _ in range(2))
    same(first, again)
    expected = [decode(((source / f"{n:02}.png").read_bytes(), (64, 64), False)) for n in (0, 1, 3, 4, 5)]
    found = {row.numpy().tobytes() for row in first.x}
    assert found == {to_latents(net, expected)[row].numpy().tobytes() for row in range(5)}


def test_a_checkpoint_never_knows_less_of_the_data_than_when_it_was_made(tmp_path, monkeypatch):
    """A run that ends the moment a checkpoint is whole goes on bitwise, with bad pictures behind it."""
    source = write_with_bad(tmp_path / "source", 12, (1, 4, 6, 10))
    data = {"source": str(source), "encode": "step", "bad_limit": 0.5}
    steps = {"steps": 4, "batch": 3, "save_every": 2, "preview_every": 4, "preview_prompts": 1}
    model = {"precision": "float32", "rank": 1}

    def run(name):
        told = {"objective": {"name": "flow_matching"}, "data": data, "train": steps, "model": model}
        trainer, _ = distill(validate({"folder": str(tmp_path / name)} | told), Console(quiet=True))
        return trainer

    def save_and_end(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    alone, save = run("alone"), checkpoint.save
    monkeypatch.setattr(checkpoint, "save", save_and_end)
    with pytest.raises(KeyboardInterrupt):
        run("ended")
    monkeypatch.setattr(checkpoint, "save", save)
    resumed, expected = run("ended").student.trained, alone.student.trained
    assert len(alone.corpus.skipped.why) == 4 and alone.corpus.skipped.whole
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_tables_that_name_the_same_pictures_are_records_of_their_own(net, tmp_path):
    """A caption that one of them lacks costs the other nothing, and a picture that can't be read is told of in each."""
    source = write_with_bad(tmp_path / "source", 3, (2,))
    for name, captions in (("a", (" ", "a ring", "a ring")), ("b", ("a disc", "a disc", "a disc"))):
        rows = [{"file_name": f"{number:02}.png", "text": text} for number, text in enumerate(captions)]
        (source / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        for number in range(3):
            (source / f"{number:02}.txt").unlink(missing_ok=True)
    stream = opened(net, str(source / "*.jsonl"), bad_limit=1.0)
    stream.batch(0, 3, 0)
    assert sorted(stream.names(0, 3, 0)) == ["a.jsonl/01.png", "b.jsonl/00.png", "b.jsonl/01.png"]
    assert set(stream.skipped.why) == {"a.jsonl/00.png", "a.jsonl/02.png", "b.jsonl/02.png"}
    for number in range(3):
        (source / f"{number:02}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="no picture of 5 records in a row can be read"):
        opened(net, str(source / "*.jsonl"), bad_limit=1.0).batch(0, 2, 0)


def test_a_source_without_a_picture_that_can_be_read_stops(net, tmp_path):
    source = write_with_bad(tmp_path / "source", 6, range(6))
    for size in (2, 20):
        with pytest.raises(ValueError, match="no picture of 6 records in a row can be read"):
            opened(net, source, bad_limit=1.0).batch(0, size, 0)


def test_what_a_process_finds_is_judged_where_all_is_known(net, tmp_path):
    """The one that finds too many goes on to tell of them, so that the first lists them all."""
    source = write_with_bad(tmp_path / "source", 12, (1, 5, 9))
    first, second = (opened(net, source, bad_limit=0.2) for _ in range(2))
    while not second.look(0, 12, 0, slice(6, 12)):
        continue
    first.skipped.hear([({}, False), second.skipped.tell()])
    while not first.look(0, 12, 0, slice(0, 6)):
        continue
    assert set(first.skipped.why) == {"01.png", "05.png", "09.png"} and first.skipped.whole
    with pytest.raises(ValueError, match="3 of 12 records are bad"):
        first.skipped.judge()


@pytest.mark.parametrize(("limit", "codes"), [(0.1, [2, 1]), (0.5, [0, 0])])
def test_bad_pictures_of_all_processes_are_judged_together_and_listed(tmp_path, limit, codes):
    """Too few for either process's own, and only when every record was tried: then both stop, with one line."""
    source, folder = tmp_path / "source", tmp_path / "run"
    write_folder(source, {f"{number:02}": f"a ring {number}" for number in range(48)})
    bad = [f"{number:02}.png" for number in range(0, 48, 8)]
    for name in bad:
        (source / name).write_bytes(b"no picture")
    settings = ["model.rank=1", "model.precision=float32", "train.preview_every=1000", "train.preview_prompts=1"]
    settings += ["objective.name=flow_matching", "data.encode=step", f"data.bad_limit={limit}", f"data.source={source}"]
    (tmp_path / "run.toml").write_text(f'folder = "{folder}"\n')
    steps = ["train.steps=14", "train.batch=4", "train.save_every=14"]  # six are an epoch
    processes = begin(tmp_path / "log", command, "train", str(tmp_path / "run.toml"), *settings, *steps)
    assert end(processes) == codes, (tmp_path / "log-0").read_text()
    listed = [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]
    assert sorted(line["path"] for line in listed) == bad
    said = (tmp_path / "log-0").read_text()
    assert ("6 of 48 records are bad; the first is" in said) == (limit == 0.1)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == (5 if limit == 0.1 else 14)


@pytest.mark.parametrize("when", ["start", "step"])
def test_a_run_lists_what_it_left_out(pictures, tmp_path, when):
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


def test_a_file_whose_name_is_no_utf_8_is_listed_and_a_folder_of_one_is_read_again(net, tmp_path):
    source = tmp_path / "source-\udcff"
    write_folder(source, {str(number): "a ring" for number in range(6)})
    (source / "\udcff.png").write_bytes(b"no picture")
    stream = opened(net, source, bad_limit=0.5)
    stream.batch(0, 6, 0)
    stream.save(tmp_path)
    [line] = (tmp_path / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {"path": "\\udcff.png", "why": "it has no caption; write it to \\udcff.txt"}
    again = opened(net, source, bad_limit=0.5)
    again.restore(tmp_path)
    assert again.stream.length == 6 and again.skipped.why == stream.skipped.why


@pytest.mark.parametrize("when", ["start", "step"])
def test_a_picture_that_may_not_be_read_is_a_bad_one(net, tmp_path, monkeypatch, when):
    """Of a folder, and of a table beside pictures, in a mixture."""
    for name in ("folder", "table"):
        write_folder(tmp_path / name, {str(n): f"a ring {n}" for n in range(4)})
    rows = [{"file_name": f"{n}.png", "text": f"a ring {n}"} for n in range(4)]
    (tmp_path / "table" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    read = Path.read_bytes

    def refused(file):
        if file.name == "1.png":
            raise PermissionError(13, "Permission denied")
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", refused)
    shares = [{"source": str(tmp_path / name)} for name in ("folder", "table")]
    corpus = encode(validate({"data": {"mixture": shares, "bad_limit": 0.5, "encode": when}}).data, net, pictures=True)
    for step in range(2):
        assert corpus.batch(step, 4, 0).x.isfinite().all()
    assert set(corpus.skipped.why) == {"0/1.png", "1/1.png"}
    assert set(corpus.skipped.why.values()) == {"the picture can't be read: Permission denied"}


@pytest.mark.parametrize("count", [10, 300])
def test_a_run_that_too_many_bad_records_stop_lists_them_too(tmp_path, count):
    """Found at the source's end, and long before it; and the same of `apexgen encode`, beside its cache."""
    source, folder, cache = tmp_path / "p.jsonl", tmp_path / "run", tmp_path / "cache"
    source.write_text("".join(json.dumps({"text": " " if n % 2 else f"prompt {n}"}) + "\n" for n in range(count)))
    settings = (f"data.source={source}", f"data.limit={count}")
    for act, given in ((distill, settings), (encode_run, (*settings, f"data.cache={cache}"))):
        with pytest.raises(ValueError, match=r"records are bad; the first is p\.jsonl:1"):
            act(short_run(folder, *given), Console(quiet=True))
    assert [path.name for path in folder.iterdir()] == ["skipped.jsonl"]
    for made in (folder, cache):
        lines = [json.loads(line)["path"] for line in (made / "skipped.jsonl").read_text().splitlines()]
        assert lines == [f"p.jsonl:{n}" for n in range(1, 2 * len(lines), 2)] and len(lines) == min(count // 2, 11)
