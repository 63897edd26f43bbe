"""Pictures and captions as they come, in every kind of source: what is good is used, what is bad is listed."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from apexgen.config import Data
from apexgen.data import decode_picture
from apexgen.encode import encode
from apexgen.evaluate.collection import find_pictures
from stored import picture, stored, write_folder, write_tar
from test_sources import opened
from test_sources_bad import animated, flat

HUGE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8).repeat(100, 0).repeat(100, 1)
ODD = {  # by name: the picture, its caption
    "ünï 猫": (picture(0), "a café"),
    "huge": (stored(Image.fromarray(HUGE), "jpeg"), "ein Bär"),
    "tiny": (picture(1, (1, 1)), "猫と犬"),
    "cmyk": (flat("CMYK", (0, 255, 255, 0), "jpeg", quality=100), "plain words"),
    "animated": (animated(), "🦊 in snow"),
    "cut": (picture(5, (64, 64))[:-4000], "cut short"),
    "zero": (b"", "no bytes"),
    "text": (b"no picture", "no picture"),
    "wordless": (picture(6), " \n"),
}
GOOD = ["a café", "ein Bär", "猫と犬", "plain words", "🦊 in snow"]
BAD = {"cut": "can't be read", "zero": "has no bytes", "text": "can't be read", "wordless": "it has no caption"}
TWICE = [("huge", "ein Bär"), ("tiny", "again")]  # keys that come twice, where a source has keys of its own


def write_files(folder, captions=True):
    for name, (content, caption) in ODD.items():
        (folder / f"{name}.jpg").write_bytes(content)
        if captions:
            (folder / f"{name}.txt").write_text(caption, encoding="utf-8")
    return folder


def rows():
    named = [(name, caption) for name, (_, caption) in ODD.items()] + TWICE
    return [{"file_name": f"{name}.jpg", "text": caption} for name, caption in named]


def write_jsonl(folder):
    write_files(folder, captions=False)
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows())))
    return folder


def write_csv(folder):
    write_files(folder, captions=False)
    lines = ["file_name,text", *(f'{row["file_name"]},"{row["text"]}"' for row in rows())]
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def write_beside(folder):
    write_files(folder, captions=False)
    parquet.write_table(pa.Table.from_pylist(rows()), folder / "metadata.parquet")
    return folder


def write_json(folder):
    write_files(folder, captions=False)
    named = [{"input_prompt": row["text"], "output_image": row["file_name"]} for row in rows()]
    (folder / "list.json").write_text(json.dumps(named))
    return folder / "list.json"


def write_bytes(folder):
    contents, captions = zip(*ODD.values(), strict=True)
    parquet.write_table(pa.table({"text": captions, "image_bytes": contents}), folder / "a.parquet", row_group_size=2)
    return folder


def write_structs(folder):
    contents, captions = zip(*ODD.values(), strict=True)
    images = [{"bytes": content, "path": None} for content in contents]
    parquet.write_table(pa.table({"caption": captions, "image": images}), folder / "a.parquet")
    return folder


def write_tars(folder, captions="txt"):
    members = []
    for name, caption in [(name, caption) for name, (_, caption) in ODD.items()] + TWICE:
        text = caption if captions == "txt" else json.dumps({"caption": caption})
        members += [(f"{name}.jpg", ODD[name][0]), (f"{name}.{captions}", text.encode())]
    write_tar(folder / "a.tar", members)
    return folder / "a.tar"


WRITERS = {  # and how a record is called, by name and place; None: the source has no keys that could come twice
    "folder": (write_files, None),
    "metadata.jsonl": (write_jsonl, "{name}.jpg"),
    "metadata.csv": (write_csv, "{name}.jpg"),
    "metadata.parquet": (write_beside, "{name}.jpg"),
    "json": (write_json, "{name}.jpg"),
    "tar with txt": (write_tars, "a.tar/{name}"),
    "tar with json": (lambda folder: write_tars(folder, "json"), "a.tar/{name}"),
    "parquet of bytes": (write_bytes, None),
    "parquet of structs": (write_structs, None),
    "hub": (lambda folder: f"hub:{write_structs(folder)}", None),
}


@pytest.mark.parametrize("when", ["start", "step"])
@pytest.mark.parametrize("kind", WRITERS)
def test_odd_pictures_are_encoded_or_listed_and_counted(net, tmp_path, kind, when):
    write, twice = WRITERS[kind]
    places = {name: place for place, name in enumerate(ODD)}
    known = {"folder": "{name}.jpg", "hub": "shard 0:{place}"}.get(kind, twice or "a.parquet:{place}")
    keys = {name: known.format(name=name, place=place) for name, place in places.items()}
    corpus = encode(Data(source=str(write(tmp_path)), bad_limit=0.9, encode=when), net, pictures=True)
    again = [] if twice is None else [f"{keys[name]}, record {len(ODD) + n}" for n, (name, _) in enumerate(TWICE, 1)]
    if when == "start":
        assert sorted(corpus.prompts) == sorted(GOOD) and len(corpus) == len(GOOD)
        assert set(corpus.keys) == {keys[name] for name in ODD if name not in BAD}
    else:
        assert corpus.batch(0, len(ODD) - 1, 0).x.isfinite().all()
    assert corpus.skipped.why.keys() == {*(keys[name] for name in BAD), *again}
    assert all(why in corpus.skipped.why[keys[name]] for name, why in BAD.items())
    assert all(corpus.skipped.why[path] == "the same key came before" for path in again)
    assert corpus.skipped.seen == len(ODD) + len(again)
    if when == "step":
        names = corpus.names(0, len(ODD) - 1, 0)
        assert set(names) == {keys[name] for name in ODD if name not in BAD}


def write_halves(folder, kind):
    """Captions, one of which holds half a character, as JSON may."""
    texts = ["a cat", "half a \ud83d cat", "a dog"]
    if kind == "tar":
        members = [(f"{n}.json", json.dumps({"caption": text}).encode()) for n, text in enumerate(texts)]
        write_tar(folder / "p.tar", members)
        return folder / "p.tar", "p.tar/1"
    rows = [json.dumps({"text": text}) for text in texts]
    (folder / f"p.{kind}").write_text("\n".join(rows) if kind == "jsonl" else f"[{','.join(rows)}]")
    return folder / f"p.{kind}", f"p.{kind}:1"


@pytest.mark.parametrize("when", ["start", "step"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "tar"])
def test_half_a_character_in_a_caption_is_a_bad_record(net, tmp_path, kind, when):
    path, bad = write_halves(tmp_path, kind)
    corpus = encode(Data(source=str(path), bad_limit=0.9, encode=when), net, pictures=False)
    if when == "start":
        assert list(corpus.prompts) == ["a cat", "a dog"]
    else:
        corpus.batch(0, 2, 0)
    assert corpus.skipped.why == {bad: r"it is no UTF-8 text: it holds '\ud83d'"}
    corpus.skipped.write(tmp_path)


def test_linked_folders_are_read_once_and_a_circle_ends(tmp_path):
    source = tmp_path / "source"
    for folder, name in ((source, "a"), (source / "c", "d"), (tmp_path / "elsewhere" / "e", "f")):
        write_folder(folder, {name: "x"})
    (source / "b").symlink_to(source / "c")  # which is read under its own name
    (source / "c" / "up").symlink_to(source)
    (source / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere" / "e")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path)
    (source / "nowhere").symlink_to(tmp_path / "none")
    assert [record.key for record in opened(source)] == ["a.png", "c/d.png", "out/e/f.png"]
    assert find_pictures(source).names == ("a.png", "c/d.png", "out/e/f.png")
    (tmp_path / "linked").symlink_to(source)
    assert len(list(opened(tmp_path / "linked"))) == 3


def test_paths_that_no_picture_can_have_are_bad_records(tmp_path):
    paths = {"x" * 5000: "there is no such file", "half \ud83d": "there is no such file", 5: "its file_name is no path"}
    rows = [{"file_name": path, "text": "a"} for path in paths]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = opened(tmp_path, bad_limit=1)
    assert list(source) == []
    keys = ["x" * 5000, r"half \ud83d", "metadata.jsonl:2"]
    assert source.skipped.why == dict(zip(keys, paths.values(), strict=True))
    source.skipped.write(tmp_path)
    assert len(list(opened(tmp_path, pictures=False))) == 3  # prompts alone need no paths


def test_what_is_no_picture_is_told_alike_in_every_run():
    with pytest.raises(ValueError, match=r"^the picture can't be read: it is of no known format$"):
        decode_picture(b"no picture")
