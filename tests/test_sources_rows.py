"""Rows as they come, of JSON, CSV and Parquet: none says what a later one may hold, and bad ones are listed."""

import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from stored import picture
from test_sources import opened

ROWS = 12_000  # of 200 letters each: above 2 MiB
LETTERS = "a" * 200
LATER = {  # what rows have beside their text, and what the last one has
    "a number that gets a fraction": ({"score": 5}, {"score": 5.5}),
    "nothing, then a text": ({"note": None}, {"note": "x"}),
    "a number, then a text": ({"id": 1}, {"id": "x"}),
    "a text, then an object": ({"note": "x"}, {"note": {"x": 1}}),
    "a new column": ({}, {"new": 1}),
    "a row of 3 MiB": ({"note": "x"}, {"note": "x" * (3 << 20)}),
}


@pytest.mark.parametrize(("early", "late"), LATER.values(), ids=LATER)
def test_of_a_large_file_of_json_no_row_says_what_a_later_one_may_hold(tmp_path, early, late):
    many = [{"text": f"{number} {LETTERS}"} | early for number in range(ROWS)]
    many.append({"text": "last"} | late)
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, many)))
    source = opened(tmp_path / "p.jsonl")
    assert [record.captions[0] for record in source] == [row["text"] for row in many] and not source.skipped.why


@pytest.mark.parametrize(("early", "late"), [("1", "1.5"), ("", "x"), ("1", "x" * 200_000), ("true", "2")])
def test_of_a_large_csv_no_row_says_what_a_later_one_may_hold(tmp_path, early, late):
    texts = [f"{number} {LETTERS}" for number in range(ROWS)] + ["last"]
    cells = [early] * ROWS + [late]
    lines = ["text,other", *(f"{text},{cell}" for text, cell in zip(texts, cells, strict=True))]
    (tmp_path / "p.csv").write_text("\n".join(lines))
    source = opened(tmp_path / "p.csv")
    assert [record.captions[0] for record in source] == texts and not source.skipped.why


def test_a_column_that_comes_late_is_found_by_its_name_and_by_the_settings(tmp_path):
    many = [{"note": LETTERS, "text": None}] * ROWS + [{"text": "by name", "late": "by the settings"}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, many)))
    (tmp_path / "p.json").write_text(json.dumps([{"note": LETTERS}] * ROWS + many[-1:]))
    for name in ("p.jsonl", "p.json"):
        assert [record.captions for record in opened(tmp_path / name, bad_limit=1)] == [("by name",)]
        late = opened(tmp_path / name, captions="late", bad_limit=1)
        assert [record.captions for record in late] == [("by the settings",)]
        with pytest.raises(ValueError, match="no column lat: did you mean late"):
            opened(tmp_path / name, captions="lat")


BROKEN = {  # lines of JSON, and why they are left out
    b'{"text": "a"': "it is no JSON: Expecting ',' delimiter at character 13",
    b"[1, 2]": "it is no JSON object",
    b'{"text": "caf\xe9"}': "it is no UTF-8 text",
    b"[" * 100_000: "it can't be read: ",
    b'{"text": "a", "n": ' + b"9" * 5000 + b"}": "it can't be read: Exceeds the limit",
    b'{"text": {"a": 1}}': "it has no caption",
}


def test_a_line_of_json_that_can_not_be_read_is_one_bad_record(tmp_path):
    good = [json.dumps({"text": f"{number} {LETTERS}"}).encode() for number in range(ROWS)]
    (tmp_path / "p.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join([*good, b"", *BROKEN, good[0]]))
    source = opened(tmp_path / "p.jsonl")
    assert [record.key for record in source] == [f"p.jsonl:{n}" for n in (*range(ROWS), ROWS + len(BROKEN))]
    assert list(source.skipped.why) == [f"p.jsonl:{ROWS + number}" for number in range(len(BROKEN))]
    told = [why[: len(known)] for why, known in zip(source.skipped.why.values(), BROKEN.values(), strict=True)]
    assert told == list(BROKEN.values())
    assert source.skipped.seen == ROWS + len(BROKEN) + 1


def test_a_line_of_csv_that_can_not_be_read_is_one_bad_record(tmp_path):
    broken = {
        b"a,1,2": "it has 3 cells, and the first line 2",
        b"a": "it has 1 cells, and the first line 2",
        b"caf\xe9,1": "it is no UTF-8 text",
        b'"a" cat,1': "it is no CSV: ',' expected after '\"'",
        b",1": "it has no caption",
    }
    good = [f'"{number}, ""{LETTERS}""",1'.encode() for number in range(ROWS)]
    (tmp_path / "p.csv").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([b"text,n", *good, b"", *broken, good[0]]))
    source = opened(tmp_path / "p.csv")
    records = list(source)
    assert [record.captions[0] for record in records[:-1]] == [f'{n}, "{LETTERS}"' for n in range(ROWS)]
    assert records[-1].key == f"p.csv:{ROWS + len(broken)}"
    assert source.skipped.why == {f"p.csv:{ROWS + n}": why for n, why in enumerate(broken.values())}


def test_a_file_in_another_encoding_is_one_line_that_says_so(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"text,n\n" + b"ein B\xe4r,1\n" * 500)
    (tmp_path / "header.csv").write_bytes(b"text,gr\xf6\xdfe\n" + b"a,1\n" * 500)
    (tmp_path / "wide.csv").write_bytes("text\nein Bär\n".encode("utf-16"))
    (tmp_path / "rows.json").write_bytes(b'[{"text": "ein B\xe4r"}]')
    for name in ("rows.csv", "header.csv", "wide.csv", "rows.json"):
        with pytest.raises(ValueError, match=rf"^\S+/{name} can't be read: it is no UTF-8 text$"):
            opened(tmp_path / name)
    (tmp_path / "some.csv").write_bytes(b"text,n\n" + b"ein Hund,1\nein B\xe4r,1\n" * 500)
    with pytest.raises(ValueError, match=r"some.csv.* records are bad; the first is some.csv:1: it is no UTF-8 text"):
        list(opened(tmp_path / "some.csv"))


def test_captions_of_digits_in_a_csv_are_captions_and_numbers_beside_them_are_none(tmp_path):
    (tmp_path / "p.csv").write_text("text,text_score\n007,1.5\n42,2\n")
    assert [record.captions for record in opened(tmp_path / "p.csv")] == [("007",), ("42",)]
    (tmp_path / "q.csv").write_text("caption_a,caption_score\nx,1.5\ny,\n")
    assert [record.captions for record in opened(tmp_path / "q.csv")] == [("x",), ("y",)]


CELLS = ["1", "9.5", "1e1", "", "NaN", "N/A", "true", "False", "-3"]


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [
        ({"minimum": 9}, ["9.5", "1e1"]),
        ({"maximum": 1}, ["1", "true", "False", "-3"]),
        ({"equals": 10}, ["1e1"]),
        ({"equals": True}, ["1", "true"]),
        ({"equals": "1e1"}, ["1e1"]),
    ],
)
def test_numbers_of_a_csv_are_compared_as_numbers(tmp_path, bounds, kept):
    lines = [f"cell {cell},{cell}" for cell in CELLS]
    (tmp_path / "p.csv").write_text("\n".join(["text,n", *lines]))
    source = opened(tmp_path / "p.csv", filter={"n": bounds})
    assert [record.captions[0].removeprefix("cell ") for record in source] == kept and not source.skipped.why


def test_a_value_that_can_not_be_compared_is_one_bad_record(tmp_path):
    rows = [{"text": f"{number}", "n": number % 10} for number in range(ROWS)] + [{"text": "x", "n": "many"}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = opened(tmp_path / "p.jsonl", filter={"n": {"minimum": 5}})
    assert len(list(source)) == ROWS / 2
    why = "data.filter.n: 'many' can't be compared with a number; write equals"
    assert source.skipped.why == {f"p.jsonl:{ROWS}": why}


def test_the_columns_of_a_json_list_are_those_of_all_its_objects(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps([{"n": 1}, {"text": "a", "n": 2}, 5, {"text": "b", "more": 1}]))
    source = opened(tmp_path / "p.json", bad_limit=1)
    assert [record.captions for record in source] == [("a",), ("b",)]
    assert source.skipped.why == {"p.json:0": "it has no caption", "p.json:2": "it is no JSON object"}


TEXTS = {
    "large": pa.array(["a", "b"], pa.large_string()),
    "view": pa.array(["a", "b"], pa.string_view()),
    "dictionary": pa.array(["a", "b"]).dictionary_encode(),
    "list": pa.array([["a"], ["b"]], pa.large_list(pa.string())),
    "list of a dictionary": pa.ListArray.from_arrays([0, 1, 2], pa.array(["a", "b"]).dictionary_encode()),
}


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_every_kind_of_text_in_parquet_is_text(tmp_path, texts):
    (tmp_path / "a").write_bytes(picture(0))
    (tmp_path / "b").write_bytes(picture(1))
    columns = {"caption": texts, "file_name": texts} if not pa.types.is_nested(texts.type) else {"caption": texts}
    parquet.write_table(pa.table(columns), tmp_path / "metadata.parquet")
    records = list(opened(tmp_path))
    assert [record.captions for record in records] == [("a",), ("b",)]
    if "file_name" in columns:
        assert [record.picture for record in records] == [picture(0), picture(1)]


def test_a_text_in_parquet_that_is_no_utf_8_is_one_bad_record(tmp_path):
    texts = [f"{number}".encode() for number in range(100)]
    table = pa.table({"text": pa.array([*texts[:70], b"caf\xe9", *texts[70:]], pa.binary()).view(pa.string())})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=40)
    source = opened(tmp_path / "a.parquet")
    assert [record.captions[0].encode() for record in source] == texts
    assert source.skipped.why == {"a.parquet:70": "it is no UTF-8 text"}
