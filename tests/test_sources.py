"""Every kind of source gives exactly what lies there: keys, captions, weights and the pictures' own bytes."""

import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from apexgen.config import load_run, validate
from apexgen.data import open_source
from apexgen.data.hub import _name as split_name
from stored import picture, write_folder, write_tar

WORDS = ["a café", "ein Bär", "猫と犬", "plain words", "🦊 in snow"]
ROWS = [{"file_name": f"p/{number}.png", "text": text} for number, text in enumerate(WORDS)]


def data(source, **settings):
    return validate({"data": {"source": str(source), **settings}}).data


def opened(source, pictures=True, **settings):
    return open_source(data(source, **settings), pictures)


def write_metadata(folder, kind):
    (folder / "p").mkdir(parents=True)
    for number in range(len(ROWS)):
        (folder / f"p/{number}.png").write_bytes(picture(number))
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), folder / "metadata.parquet")
    elif kind == "csv":
        lines = ["file_name,text", *(f'{row["file_name"]},"{row["text"]}"' for row in ROWS)]
        (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    else:
        (folder / f"metadata.{kind}").write_text("\n".join(json.dumps(row) for row in ROWS))
    return folder


def write_parquet(folder, kind):
    folder.mkdir()
    images = [picture(number) for number in range(len(WORDS))]
    if kind == "authors":
        columns = {"text": WORDS, "image_bytes": images}
    else:
        columns = {"image": [{"bytes": image, "path": None} for image in images], "caption": WORDS}
    parquet.write_table(pa.table(columns), folder / "a.parquet", row_group_size=2)
    return folder


def write_tars(folder, kind):
    folder.mkdir()
    for shard in range(2):
        members = []
        for number in range(shard * 3, min(shard * 3 + 3, len(WORDS))):
            members.append((f"{number:04d}.jpg", picture(number)))
            text = WORDS[number].encode() if kind == "txt" else json.dumps({"caption": WORDS[number]}).encode()
            members.append((f"{number:04d}.{kind}", text))
        write_tar(folder / f"sa_{shard:06d}.tar", members)
    return folder


def write_sharegpt(folder, _):
    folder.mkdir()
    rows = [{"input_prompt": text, "output_image": f"images/{n}.png"} for n, text in enumerate(WORDS)]
    write_folder(folder / "images", {str(number): "" for number in range(len(WORDS))})
    for file in (folder / "images").glob("*.txt"):
        file.unlink()
    (folder / "text_to_image.json").write_text(json.dumps(rows))
    return folder


def write_named_folder(folder, _):
    write_folder(folder, {f"{n} {text}": text for n, text in enumerate(WORDS)})
    return folder


def write_hub(folder, kind):
    write_parquet(folder, kind)
    return f"hub:{folder}"


def write_hub_folder(folder, _):
    write_metadata(folder, "jsonl")
    return f"hub:{folder}"


KINDS = {
    "folder": (write_named_folder, ""),
    "metadata.jsonl": (write_metadata, "jsonl"),
    "metadata.csv": (write_metadata, "csv"),
    "metadata.parquet": (write_metadata, "parquet"),
    "the authors' parquet": (write_parquet, "authors"),
    "parquet with image structs": (write_parquet, "struct"),
    "tars with txt": (write_tars, "txt"),
    "tars with json": (write_tars, "json"),
    "ShareGPT-4o-Image": (write_sharegpt, ""),
    "hub, parquet": (write_hub, "struct"),
    "hub, a folder of pictures": (write_hub_folder, ""),
}


@pytest.mark.parametrize(("write", "kind"), KINDS.values(), ids=KINDS)
def test_every_kind_gives_what_lies_there(tmp_path, write, kind):
    path = write(tmp_path / "data", kind)
    source = opened(path)
    records = list(source)
    assert [record.captions for record in records] == [(text,) for text in WORDS]
    assert [record.picture for record in records] == [picture(number) for number in range(len(WORDS))]
    assert len({record.key for record in records}) == len(WORDS)
    assert list(source) == records  # a second time too
    assert all(list(source.records(start)) == records[start:] for start in range(len(WORDS) + 1))
    assert source.length() in (None, len(WORDS))
    assert not source.skipped.why
    assert str(path).removeprefix("hub:") in str(source) and "\n" not in str(source)
    bare = list(opened(path, pictures=False))
    assert [(record.key, record.captions) for record in bare] == [(record.key, record.captions) for record in records]
    assert all(record.picture is None for record in bare)
    assert list(opened(path, limit=3)) == records[:3]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", "\n".join(["", *WORDS, " "])),
        ("p.prompts", "\n".join(WORDS)),
        ("p.jsonl", "\n".join(json.dumps({"prompt": text, "n": 3}) for text in WORDS)),
        ("p.json", json.dumps([{"prompt": text} for text in WORDS])),
        ("p.csv", "caption,n\n" + "\n".join(f'"{text}",1' for text in WORDS)),
        ("p.tsv", "n\tcaption\n" + "\n".join(f"1\t{text}" for text in WORDS)),
    ],
)
def test_captions_alone(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    records = list(opened(tmp_path / name))
    assert [(record.captions, record.weights, record.picture) for record in records] == [
        ((text,), (1.0,), None) for text in WORDS
    ]


def test_scenes_are_drawn_anew_from_any_position():
    records = list(opened("scenes", limit=12))
    assert len(records) == 12 and len({record.picture for record in records}) == 12
    assert list(opened("scenes", limit=12).records(7)) == records[7:]
    assert [record.captions for record in opened("scenes", pictures=False, limit=12)] == [r.captions for r in records]


def test_several_captions_have_their_weights(tmp_path):
    rows = {
        "image": [{"bytes": picture(number), "path": None} for number in range(3)],
        "caption_detail": ["long 0", "long 1", "long 2"],
        "caption_style": ["oil", None, ""],
        "caption_style_cn": ["x", "y", "z"],
        "score_image_clarity": [9.5, 9.0, 3.0],
        "bool_caption_original": [True, None, True],
    }
    parquet.write_table(pa.table(rows), tmp_path / "flux.parquet")
    weights = {"caption_detail": 3.0, "caption_style": 1.0}
    first, second, third = opened(tmp_path, captions=weights)
    assert (first.captions, first.weights) == (("long 0", "oil"), (0.75, 0.25))
    assert (second.captions, second.weights) == (("long 1",), (1.0,))  # an empty caption gives up its share
    assert third.captions == ("long 2",)
    assert next(iter(opened(tmp_path))).captions == ("long 0", "oil")  # the families of columns, not the foreign ones
    assert next(iter(opened(tmp_path, captions="caption_style_cn"))).captions == ("x",)
    bounds = {"score_image_clarity": {"minimum": 9}, "bool_caption_original": {"equals": True}}
    source = opened(tmp_path, filter=bounds)
    assert [record.captions[0] for record in source] == ["long 0"]  # where there is no value, none is within bounds
    assert not source.skipped.why and source.length() is None
    assert len(list(opened(tmp_path, filter={"score_image_clarity": {"maximum": 9}}))) == 2


def test_a_caption_file_has_one_caption_a_line(tmp_path):
    write_folder(tmp_path, {"a": "one\n\n two \r\nthree"})
    (record,) = opened(tmp_path)
    assert record.captions == ("one", "two", "three") and record.weights == pytest.approx((1 / 3,) * 3)


def test_a_list_of_captions_in_one_column(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"captions": ["a", "b"]}\n{"captions": []}\n')
    source = opened(tmp_path / "p.jsonl")
    (record,) = source
    assert record.weights == (0.5, 0.5) and source.skipped.why == {"p.jsonl:1": "it has no caption"}


def test_a_pattern_names_several_files_and_folders_have_folders(tmp_path):
    write_tars(tmp_path / "tars", "txt")
    assert len(list(opened(tmp_path / "tars/*.tar"))) == len(list(opened(tmp_path / "tars"))) == len(WORDS)
    write_folder(tmp_path / "deep/er", {"a": "x"})
    assert [record.key for record in opened(tmp_path / "deep")] == ["er/a.png"]


def test_hidden_pictures_and_those_in_hidden_folders_are_no_records(tmp_path):
    source = tmp_path / ".kept"  # which is hidden itself, and was asked for
    for name in ("a", "b/.c", "b/.checkpoints/d", ".e/f/g"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / f"{name}.png").write_bytes(picture(0))
    (source / "a.txt").write_text("x")
    records = opened(source)
    assert [record.key for record in records] == ["a.png"] and not records.skipped.why


def test_a_data_set_of_the_hub_has_subsets_splits_and_revisions(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"text": split}))

    def first(**settings):
        return next(iter(opened(f"hub:{tmp_path}", **settings))).captions[0]

    def refused(message, **settings):
        with pytest.raises(ValueError, match=message) as caught:
            first(**settings)
        assert "\n" not in str(caught.value)

    assert first() == "train" and first(split="test") == "test"
    refused(r'\(data.subset not given, data.split = "tset"\) .*: Bad split: tset. Av.*train.*test', split="tset")
    subsets = "".join(f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in ("train", "test"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{subsets}---\n")
    assert first(subset="test") == "test"
    refused(r"data.subset = \"tset\".*'tset' not found. Available: \['train', 'test'\]", subset="tset")
    refused(r"data.subset not given.* pick one among the available configs: \['train', 'test'\]$")
    assert split_name("hub:owner/name@v2") == ("owner/name", "v2") and split_name("hub:owner/name")[1] is None
    (tmp_path / "a@b").mkdir()
    assert split_name(f"hub:{tmp_path / 'a@b'}") == (str(tmp_path / "a@b"), None)
    with pytest.raises(ValueError, match='data: split is of a data set of the hub; remove it, or write source = "hub:'):
        opened(tmp_path / "train.jsonl", split="test")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"captions": "txet"}, r"data\.captions: .*has no column txet: did you mean text\?"),
        ({"picture": "image_byte"}, r"data\.picture: .*did you mean image_bytes\?"),
        ({"filter": {"zzz": {"minimum": 1}}}, r"data\.filter: .*no column zzz: its columns: text, image_bytes"),
        ({"filter": {"text": {"minimum": 1}}}, r"data\.filter\.text: 'a café' can't be compared"),
    ],
)
def test_an_unknown_column_is_refused_with_the_nearest(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        list(opened(write_parquet(tmp_path / "p", "authors"), **settings))
    assert "\n" not in str(caught.value)


def test_what_is_no_source_is_told_in_one_line(tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "p.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "p.jsonl").write_text("{")
    (tmp_path / "p.tar").write_bytes(b"")
    (tmp_path / "p.json").write_text("[{")
    (tmp_path / "q.csv").write_text("a,b\n1,2\n")
    expected = {
        "missing": "no such file or folder",
        "none": "no pictures, tables or tars",
        "*.nothing": "no such file or folder",
        "binary": "neither UTF-8 text nor",
        "p.parquet": "can't be read",
        "p.jsonl": "can't be read",
        "p.json": "can't be read",
        "p.tar": "can't be read",
        "q.csv": "write data.captions = one of: a, b",
        "p.*": "several kinds",
    }
    for name, why in expected.items():
        with pytest.raises(ValueError) as caught:
            list(opened(tmp_path / name))
        assert why in str(caught.value) and "\n" not in str(caught.value), name
    with pytest.raises(ValueError, match=r"can't be opened") as caught:
        opened(f"hub:{tmp_path / 'none'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.captions={text = 0}", "data.captions: text is drawn 0.0 times"),
        ("data.filter={score = {}}", "data.filter.score: write minimum, maximum or equals"),
        ("data.filter={score = {minimun = 1}}", "did you mean data.filter.score.minimum?"),
        ("data.mixture=[{sorce = 'a'}]", "did you mean data.mixture.0.source?"),
        ("data.mixture=[{weight = 0}]", "data.mixture.0.weight"),
        ("data.bad_limit=1.5", "data.bad_limit"),
    ],
)
def test_a_wrong_setting_is_named(override, message):
    with pytest.raises(ValueError) as caught:
        load_run(None, [override])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_setting_without_effect_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="source has no effect beside mixture"):
        validate({"data": {"source": "a", "mixture": [{"source": "b"}]}})
    write_folder(tmp_path, {"a": "x"})
    for path in (tmp_path, "scenes"):
        with pytest.raises(ValueError, match=r"data\.captions: .* has no columns"):
            opened(path, captions="text")
