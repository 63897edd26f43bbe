"""Bad records are skipped, counted and listed; paths stay inside; every picture that can be read is read right."""

import json
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from apexgen.data import decode_picture
from apexgen.data.sizes import picture_sides
from stored import picture, stored, write_folder, write_tar
from test_sources import opened

OUT = "its path leads out of the folder"


def test_bad_records_of_a_folder_are_skipped_counted_and_listed(tmp_path):
    write_folder(tmp_path / "data", {f"{number}": f"caption {number}" for number in range(40)} | {"empty": " \n"})
    (tmp_path / "data/7.txt").unlink()
    (tmp_path / "data/9.txt").write_bytes(b"\xff\xfe")
    source = opened(tmp_path / "data", bad_limit=0.1)
    assert len(list(source)) == 38 and source.length() == 41
    source.skipped.finish()
    source.skipped.write(tmp_path)
    told = {line["path"]: line["why"] for line in map(json.loads, (tmp_path / "skipped.jsonl").open())}
    assert told == {
        "7.png": "it has no caption; write it to 7.txt",
        "9.png": "9.txt is no UTF-8 text",
        "empty.png": "it has no caption",
    }
    list(source)
    assert len(source.skipped.why) == 3  # a second reading finds the same ones
    assert list(source.records(20)) == list(source)[20:]


def test_too_many_bad_records_stop_the_run_in_one_line(tmp_path):
    write_folder(tmp_path, {f"{number}": "" if number < 3 else "a" for number in range(20)})
    source = opened(tmp_path, bad_limit=0.1)
    with pytest.raises(ValueError, match=r"3 of 20 records are bad; the first is 0.png: it has no") as caught:
        list(source)
        source.skipped.finish()
    assert "\n" not in str(caught.value) and "data.bad_limit = 0.1" in str(caught.value)
    allowed = opened(tmp_path, bad_limit=0.15)
    assert len(list(allowed)) == 17
    allowed.skipped.finish()


def test_a_large_source_stops_before_its_end(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"text": ""}\n' * 1000)
    source = opened(tmp_path / "p.jsonl")
    with pytest.raises(ValueError, match="11 of 11 records"):
        list(source)


def test_a_source_of_nothing_is_told(tmp_path):
    (tmp_path / "p.txt").write_text("\n")
    source = opened(tmp_path / "p.txt")
    assert list(source) == []
    with pytest.raises(ValueError, match="no records that can be used"):
        source.skipped.finish()


def test_a_key_that_comes_twice_is_told(tmp_path):
    members = [("a.jpg", b"1"), ("a.txt", b"x"), ("b.jpg", b"2"), ("b.txt", b"y"), ("a.jpg", b"3"), ("a.txt", b"z")]
    write_tar(tmp_path / "s.tar", members)
    source = opened(tmp_path / "s.tar", bad_limit=1)
    assert [(record.key, record.picture) for record in source] == [("s.tar/a", b"1"), ("s.tar/b", b"2")]
    assert source.skipped.why == {"s.tar/a, record 3": "the same key came before"}
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "x"}\n' * 2)
    (tmp_path / "a.png").write_bytes(picture(0))
    table = opened(tmp_path, bad_limit=1)
    assert len(list(table)) == 1 and table.skipped.why == {"a.png, record 2": "the same key came before"}


def test_files_of_one_name_in_several_folders_keep_their_records_apart(tmp_path):
    for folder in ("x", "y/z"):
        (tmp_path / folder).mkdir(parents=True)
        members = [(f"{n}.{end}", content) for n in range(2) for end, content in (("jpg", b"1"), ("txt", b"a"))]
        write_tar(tmp_path / folder / "s.tar", members)
        (tmp_path / folder / "p.txt").write_text("one\ntwo\n")
        (tmp_path / folder / "p.jsonl").write_text('{"file_name": "a.png", "text": "a"}\n{"text": "b"}\n')
        (tmp_path / folder / "a.png").write_bytes(picture(0))
    tars, prompts, tables = (opened(tmp_path / "**" / name) for name in ("s.tar", "p.txt", "p.jsonl"))
    assert [record.key for record in tars] == ["x/s.tar/0", "x/s.tar/1", "y/z/s.tar/0", "y/z/s.tar/1"]
    assert [record.key for record in prompts] == ["x/p.txt:1", "x/p.txt:2", "y/z/p.txt:1", "y/z/p.txt:2"]
    assert [record.key for record in tables] == ["x/p.jsonl/a.png", "x/p.jsonl:1", "y/z/p.jsonl/a.png", "y/z/p.jsonl:1"]
    assert next(iter(opened(tmp_path / "x" / "p.txt"))).key == "p.txt:1"


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..\\x", "C:\\x"])
def test_hostile_paths_are_refused(tmp_path, name):
    (tmp_path / "x").write_bytes(b"secret")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "a"}))
    source = opened(folder)
    assert list(source) == [] and source.skipped.why == {name: OUT}
    members = [("good.jpg", b"0"), ("good.txt", b"a"), (f"{name}.jpg", b"1"), (f"{name}.txt", b"a")]
    write_tar(tmp_path / "t.tar", members)
    tar = opened(tmp_path / "t.tar")
    assert [record.key for record in tar] == ["t.tar/good"] and set(tar.skipped.why.values()) <= {OUT}


def test_links_out_of_the_folder_and_missing_pictures_are_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"secret")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "x")
    rows = [{"file_name": name, "text": "a"} for name in ("link.png", "none.png")]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = opened(folder)
    assert list(source) == []
    assert source.skipped.why == {"link.png": OUT, "none.png": "there is no such file"}
    assert len(list(opened(folder, pictures=False))) == 2  # prompts alone need no pictures


def test_a_tar_that_is_cut_short_gives_what_comes_before(tmp_path):
    members = [(f"{n}.{end}", content) for n in range(30) for end, content in (("jpg", picture(n)), ("txt", b"a"))]
    write_tar(tmp_path / "s.tar", members)
    whole = list(opened(tmp_path / "s.tar"))
    content = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(content[: len(content) // 2 + 700])
    source = opened(tmp_path / "s.tar")
    cut = list(source)
    assert 10 < len(cut) < 20 and cut[:-1] == whole[: len(cut) - 1]
    assert list(source.skipped.why) == ["s.tar"]


def test_texts_of_a_tar_that_can_not_be_read_are_told(tmp_path):
    members = [("a.jpg", b"1"), ("a.json", b'{"caption": "x"}'), ("b.jpg", b"2"), ("b.json", b"{")]
    write_tar(tmp_path / "s.tar", [*members, ("c.jpg", b"3")])
    source = opened(tmp_path / "s.tar")
    assert [record.key for record in source] == ["s.tar/a"]
    assert "can't be read" in source.skipped.why["s.tar/b"] and source.skipped.why["s.tar/c"] == "it has no caption"


def test_a_row_of_parquet_without_a_picture_is_left_to_who_decodes(tmp_path):
    table = pa.table(
        {"text": ["a", "b"], "image_bytes": [None, b""]}, pa.schema({"text": "str", "image_bytes": "binary"})
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    assert [record.picture for record in opened(tmp_path / "a.parquet")] == [None, b""]


def write_damaged(file, column):
    """A table of 200 pictures in two groups of rows; of the second, the column's first page has no header."""
    captions = [f"caption {number}" for number in range(200)]
    table = pa.table({"text": captions, "image_bytes": [picture(number) for number in range(200)]})
    parquet.write_table(table, file, row_group_size=100, use_dictionary=False)
    header = parquet.read_metadata(file).row_group(1).column(table.column_names.index(column)).data_page_offset
    damaged = bytearray(file.read_bytes())
    damaged[header : header + 20] = bytes([255] * 20)
    file.write_bytes(damaged)
    return captions


def test_where_a_page_of_parquet_is_damaged_its_groups_pictures_are_bad_and_no_others(tmp_path):
    captions = write_damaged(tmp_path / "a.parquet", "image_bytes")
    read = list(opened(tmp_path / "a.parquet"))
    assert [record.captions[0] for record in read] == captions
    assert [record.fault is not None for record in read] == [False] * 100 + [True] * 100
    assert all("a.parquet can't be read" in record.fault for record in read[100:])


def test_a_damaged_page_of_texts_is_one_line_that_names_the_file(tmp_path):
    write_damaged(tmp_path / "a.parquet", "text")
    with pytest.raises(ValueError, match=r"^\S+a.parquet can't be read: [^\n]+$"):
        list(opened(tmp_path / "a.parquet"))


def flat(mode, color, kind="png", size=(4, 4), **options):
    return stored(Image.new(mode, size, color), kind, **options)


def animated():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "lime", "blue")]
    return stored(frames[0], "gif", save_all=True, append_images=frames[1:])


def palette(transparent):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    return stored(image, "png", **({"transparency": 1} if transparent else {}))


@pytest.mark.parametrize(
    ("content", "color"),
    [
        (flat("RGB", (255, 0, 0)), (1, 0, 0)),
        (flat("L", 51), (0.2, 0.2, 0.2)),
        (flat("1", 1), (1, 1, 1)),
        (flat("LA", (0, 0)), (1, 1, 1)),
        (flat("RGBA", (255, 0, 0, 0)), (1, 1, 1)),
        (flat("RGBA", (255, 0, 0, 51)), (1, 0.8, 0.8)),
        (flat("I;16", 257 * 102), (0.4, 0.4, 0.4)),
        (flat("I;16", 257 * 102, "tiff"), (0.4, 0.4, 0.4)),
        (flat("CMYK", (0, 255, 255, 0), "tiff"), (1, 0, 0)),
        (flat("CMYK", (0, 255, 255, 0), "jpeg", quality=100), (1, 0, 0)),
        (flat("RGB", (0, 0, 255), "webp", lossless=True), (0, 0, 1)),
        (animated(), (1, 0, 0)),
        (palette(False), (1, 0, 0)),
        (palette(True), (1, 1, 1)),
    ],
)
def test_every_kind_of_picture_has_its_color(content, color):
    array = decode_picture(content, None)
    assert array.shape == (4, 4, 3) and array.dtype == np.float32
    assert np.abs(array - np.float32(color)).max() < 0.01


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_picture_lies_upright(turned):
    upright = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    undo = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turned
    content = stored(Image.fromarray(np.ascontiguousarray(undo[turned](upright))), "png", exif=exif)
    assert np.array_equal(decode_picture(content, None), np.float32(upright) / 255)


def test_a_picture_is_resized_and_its_middle_is_kept():
    thirds = np.zeros((30, 90, 3), dtype=np.uint8)
    thirds[:, 30:60, 1] = 255
    array = decode_picture(stored(Image.fromarray(thirds)), (10, 10))
    assert array.shape == (10, 10, 3) and np.abs(array[:, 1:-1] - np.float32([0, 1, 0])).max() < 0.1
    assert decode_picture(picture(0, (1, 1)), (16, 8)).shape == (16, 8, 3)
    assert decode_picture(flat("L", 9, size=(4000, 3000)), (8, 8)).shape == (8, 8, 3)
    assert np.array_equal(decode_picture(picture(3), (8, 8)), decode_picture(picture(3), None))


def bomb(width, height):
    """A PNG of few bytes that says it is huge."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        picture(0, (64, 64))[:-4000],
        stored(Image.new("RGB", (64, 64), "red"), "jpeg")[:-200],
        animated()[:40],
        bomb(30_000, 30_000),
        bomb(12_000, 12_000),
    ],
    ids=["zero-byte", "text", "cut png", "cut jpeg", "cut gif", "bomb", "bomb that Pillow only warns of"],
)
def test_what_can_not_be_read_is_a_value_error_of_one_line(content):
    with pytest.raises(ValueError) as caught:
        decode_picture(content, (8, 8))
    assert "\n" not in str(caught.value) and "picture" in str(caught.value)


def test_a_damaged_picture_of_any_kind_is_a_value_error_of_one_line():
    """Bytes of each kind's header changed at random: it is read, by its header or whole, or told of."""
    random, told = np.random.default_rng(0), 0
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(random.integers(0, 256, (12, 8, 3), dtype=np.uint8))
    for kind in ("jpeg", "png", "gif", "webp", "bmp", "tiff", "avif"):
        whole = np.frombuffer(stored(image, kind, exif=exif), dtype=np.uint8)
        for _ in range(60):
            content = whole.copy()
            content[random.integers(0, min(len(whole), 200), 3)] = random.integers(0, 256, 3)
            for read in (decode_picture, picture_sides):
                try:
                    read(content.tobytes())
                except ValueError as error:
                    told += 1
                    assert "\n" not in str(error)
    assert told > 100
