"""What can't be encoded: bad records are left out and listed, a broken cache and idle settings cost a line."""

import io
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from rich.console import Console

from apexgen.backbones.diffusion import load_backbone
from apexgen.config import Data
from apexgen.encode import encode
from apexgen.scenes.pipeline import FOLDER
from corpora import encoded, settings
from stored import picture


def test_what_is_bad_is_left_out_listed_and_not_too_much_of_it(pictures, tmp_path):
    source = shutil.copytree(pictures, tmp_path / "source")
    (source / "2.png").write_bytes((source / "2.png").read_bytes()[:99])
    (source / "5.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"2 of 6 records are bad; the first is .*; mend them") as refused:
        encoded(settings(source))
    assert "\n" not in str(refused.value)
    corpus, *_ = encoded(settings(source, aspect=1.0, bad_limit=0.5, cache=str(tmp_path / "cache")))
    assert len(corpus) == 4
    assert sorted(corpus.names(0, 4, 0)) == [f"{number}.png" for number in (0, 1, 3, 4)]
    [listed] = (tmp_path / "cache").glob("records-*.json")
    bad = json.loads(listed.read_text())["bad"]
    assert bad.keys() == {"2.png", "5.png"} and all("can't be read" in reason for reason in bad.values())


def test_a_bad_picture_takes_no_record_of_a_like_name_with_it(tmp_path):
    """Parquet files of one name in two folders, and a table that names a good picture twice."""
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        images = [b"no picture" if (folder, n) == ("x", 2) else picture(n) for n in range(5)]
        table = pa.table({"text": [f"{folder} {n}" for n in range(5)], "image_bytes": images})
        parquet.write_table(table, tmp_path / folder / "part-0.parquet")
    corpus, texts, _ = encoded(settings(tmp_path / "*/*.parquet", bad_limit=0.5))
    assert len(corpus) == 9 and {"x 1", "y 2"} <= set(texts)
    assert list(corpus.skipped.why) == ["x/part-0.parquet:2"] and corpus.skipped.seen == 10
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "x"}\n' * 3)
    corpus, *_ = encoded(settings(tmp_path / "metadata.jsonl", bad_limit=0.9))
    assert len(corpus) == 1 and list(corpus.skipped.why) == ["a.png, record 2", "a.png, record 3"]


def test_a_broken_shard_is_named(pictures, tmp_path):
    data = settings(pictures, cache=str(tmp_path / "cache"))
    encoded(data)
    [shard] = (tmp_path / "cache").glob("latents-*/*")
    shard.write_bytes(shard.read_bytes()[:20])
    with pytest.raises(ValueError, match=rf"{shard.name} can't be read .*; remove it, and it is made again"):
        encoded(data)
    shard.unlink()
    assert encoded(data)[1:] == ([], 6)


@pytest.mark.parametrize("others", [{}, {"limit": 1}, {"encode": "step"}])
def test_a_file_of_prompts_where_pictures_are_asked_for_is_refused_at_once(tmp_path, others):
    (tmp_path / "prompts.txt").write_text("a red ring\n" * 3)
    data = Data(source=str(tmp_path / "prompts.txt"), **others)
    line = r'^data\.source = .*prompts only; name a source with pictures, or write objective\.name = "apex" with anchor'
    with pytest.raises(ValueError, match=line):
        encode(data, load_backbone(FOLDER), pictures=True)
    with pytest.raises(ValueError, match="neither UTF-8 text"):
        (tmp_path / "prompts.txt").write_bytes(b"\xff")
        encode(data, load_backbone(FOLDER), pictures=True)


def test_a_bar_leaves_no_empty_line_where_there_is_no_terminal(tmp_path):
    (tmp_path / "prompts.txt").write_bytes(b"\xff")
    console = Console(file=io.StringIO())
    with pytest.raises(ValueError, match="neither UTF-8 text"):
        encode(Data(source=str(tmp_path / "prompts.txt")), load_backbone(FOLDER), pictures=False, console=console)
    assert console.file.getvalue() == ""


@pytest.mark.parametrize("field", ["flip = true", "aspect = 2.0"])
def test_settings_of_pictures_need_pictures(field):
    name, _, value = field.partition(" = ")
    with pytest.raises(ValueError, match=rf"data\.{name} is of pictures"):
        encode(Data(**{name: json.loads(value)}), load_backbone(FOLDER), pictures=False)
