"""Real processes: an `apexgen encode` that is killed and goes on, two that share the work, and the same of pictures."""

import json
import signal
import tarfile
import time
from pathlib import Path

import pytest
from forks import start
from PIL import Image

from apexgen.encode.table import Table
from apexgen.scenes.prompts import draw_captions
from together import begin, command, end, logs_of

CAPTIONS = sorted({caption.text for caption in draw_captions(1200, held_out=False, seed=1)})


def run(log, *arguments):
    process = start(log, *arguments)
    process.join()
    assert process.exitcode == 0, log.read_text()
    return log.read_text()


def run_shared(folder, *arguments):
    """What each of two processes printed."""
    codes = end(begin(folder / "log", command, *arguments))
    assert codes == [0, 0], logs_of(folder)
    return [(folder / f"log-{rank}").read_text() for rank in range(2)]


def kill_when(process, happened):
    while not happened():
        assert process.is_alive()
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def contents(folder, pattern):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob(pattern))}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    (folder / "prompts.txt").write_text("\n".join(CAPTIONS))
    (folder / "run.toml").write_text(f'[data]\nsource = "{folder / "prompts.txt"}"\n')
    return folder


@pytest.fixture(scope="module")
def alone(source):
    """The cache of an encode that was left alone."""
    run(source / "log", "encode", str(source / "run.toml"), f"data.cache={source / 'cache'}")
    return source / "cache"


def test_a_killed_encode_goes_on_and_ends_with_the_same_files(source, alone, tmp_path):
    cache = tmp_path / "cache"
    command = ("encode", str(source / "run.toml"), f"data.cache={cache}")
    kill_when(start(tmp_path / "log", *command), lambda: any(cache.glob("texts-*/[!.]*")))
    kept = {path: path.stat().st_mtime_ns for path in cache.glob("texts-*/[!.]*")}
    assert kept and not any(cache.glob("records-*"))
    said = run(tmp_path / "log", *command)
    assert f"captions: {len(CAPTIONS) - 1024 * len(kept):,} encoded, {1024 * len(kept):,} reused, 0 bad" in said
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert contents(cache, "texts-*/*") == contents(alone, "texts-*/*")


@pytest.mark.parametrize("files", [1, 8])
def test_processes_share_the_work_and_hold_what_one_would(source, alone, tmp_path, files):
    from safetensors.torch import load_file

    cache, many = tmp_path / "cache", -(-len(CAPTIONS) // files)
    for number in range(files):
        (tmp_path / f"{number}.txt").write_text("\n".join(CAPTIONS[number * many :][:many]))
    arguments = ("encode", str(source / "run.toml"), f"data.cache={cache}", f"data.source={tmp_path / '[0-9].txt'}")
    first, other = run_shared(tmp_path, *arguments)
    assert f"captions: {len(CAPTIONS):,} encoded, 0 reused, 0 bad" in first and "encoded" not in other
    [told] = [json.loads(file.read_text()) for file in cache.glob("records-*.json")]
    assert (told["records"], told["captions"]) == (len(CAPTIONS), len(CAPTIONS))
    [table] = [Table.load(file).prompts for file in cache.glob("records-*.safetensors")]
    assert list(table) == CAPTIONS, "in the order of the source"
    [mine, whole] = [
        {name: tensor for path in sorted(folder.glob("texts-*/*")) for name, tensor in load_file(path).items()}
        for folder in (cache, alone)
    ]
    assert mine.keys() == whole.keys()
    assert max((mine[name].float() - whole[name].float()).abs().max() for name in mine) < 1e-5
    assert len(list(cache.glob("texts-*/*"))) > len(list(alone.glob("texts-*/*")))  # each wrote its own


def test_bad_records_that_are_all_in_one_share_are_judged_among_all(tmp_path):
    """And listed with those of the other process."""
    Image.new("RGB", (64, 64)).save(tmp_path / "0.png")
    for number in range(1, 40):
        (tmp_path / f"{number}.png").hardlink_to(tmp_path / "0.png")
    for number in range(8):
        lost = {0: 5, 1: 1}.get(number, 0)  # five are more than two hundredths of the first 200
        names = [f"{'lost-' * (row < lost)}{row}.png" for row in range(40)]
        rows = [json.dumps({"file_name": name, "text": "a red ring"}) + "\n" for name in names]
        (tmp_path / f"{number}.jsonl").write_text("".join(rows))
    (tmp_path / "run.toml").write_text('[objective]\nname = "flow_matching"\n[data]\nbad_limit = 0.02\n')
    cache = tmp_path / "cache"
    run_shared(tmp_path, "encode", str(tmp_path / "run.toml"), f"data.source={tmp_path}/*.jsonl", f"data.cache={cache}")
    [told] = [json.loads(file.read_text()) for file in cache.glob("records-*.json")]
    assert told["records"] == 8 * 40 - 6 and len(told["bad"]) == 6


def synthesis(folder: Path, source: Path) -> tuple[str, ...]:
    (source / "few.txt").write_text("\n".join(CAPTIONS[:10]))
    given = ("--prompts", str(source / "few.txt"), "--out", str(folder), "--steps", "3", "--shard", "2", "--seed", "5")
    return ("synthesize", "scenes", *given)


def test_synthesis_goes_on_after_a_kill_and_is_shared_with_the_same_files(source, tmp_path):
    whole = tmp_path / "whole"
    run(tmp_path / "log", *synthesis(whole, source))
    expected = contents(whole, "*")
    assert len(expected) == 6
    killed = tmp_path / "killed"
    kill_when(start(tmp_path / "log", *synthesis(killed, source)), lambda: (killed / "000001.tar").is_file())
    made = {path: path.stat().st_mtime_ns for path in killed.glob("*.tar")}
    assert f"{5 - len(made)} of 5 tars made now" in run(tmp_path / "log", *synthesis(killed, source)).replace("\n", " ")
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert contents(killed, "[!.]*") == expected
    run_shared(tmp_path, *synthesis(tmp_path / "shared", source))
    assert contents(tmp_path / "shared", "*") == expected
    with tarfile.open(whole / "000002.tar") as tar:
        assert tar.getnames() == [f"{place:09d}.{kind}" for place in (4, 5) for kind in ("json", "png", "txt")]
        assert tar.extractfile("000000005.txt").read().decode() == CAPTIONS[5]
