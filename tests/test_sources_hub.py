"""Pictures that the rows of a hub's data set only name: read where they lie, and nothing else of this machine is."""

import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from apexgen.data.base import Unreadable
from apexgen.data.hub import _stored
from loopback import Quiet, listening
from stored import picture
from test_sources import opened

NO_FILE = "its path leads to no file of the data set"


def write_rows(folder, paths):
    """A data set whose pictures are told by their paths alone."""
    folder.mkdir()
    images = [{"bytes": None, "path": path} for path in paths]
    table = pa.table({"image": images, "text": [f"row {number}" for number in range(len(paths))]})
    parquet.write_table(table, folder / "train.parquet")
    return f"hub:{folder}"


def test_pictures_in_a_zip_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as packed:
        for number in range(3):
            packed.writestr(f"{number}.png", picture(number))
        rows = [json.dumps({"file_name": f"{number}.png", "text": f"row {number}"}) for number in range(3)]
        packed.writestr("metadata.jsonl", "\n".join(rows))
    records = list(opened(f"hub:{tmp_path}"))
    assert [(record.captions, record.picture) for record in records] == [
        ((f"row {number}",), picture(number)) for number in range(3)
    ]


def test_pictures_behind_an_address_are_read_and_one_that_is_not_there_is_a_bad_record(tmp_path):
    class Handler(Quiet):
        def do_GET(self):
            there = self.path == "/0.png"
            self.send_response(200 if there else 404)
            self.send_header("Content-Length", str(len(picture(0)) if there else 0))
            self.end_headers()
            if there and self.command == "GET":
                self.wfile.write(picture(0))

        do_HEAD = do_GET

    with listening(Handler) as address:
        good, bad = opened(write_rows(tmp_path / "rows", [f"{address}/0.png", f"{address}/1.png"]))
    assert (good.picture, good.fault) == (picture(0), None)
    assert bad.picture is None and bad.fault.startswith("the picture can't be read: ") and "\n" not in bad.fault


def test_a_row_can_not_name_another_file_of_this_machine(tmp_path):
    (tmp_path / "secret.png").write_bytes(picture(0))
    with zipfile.ZipFile(tmp_path / "secret.zip", "w") as packed:
        packed.writestr("0.png", picture(0))
    secret, archive, inside = tmp_path / "secret.png", tmp_path / "secret.zip", tmp_path / "rows" / "0.png"
    paths = [
        secret, f"file://{secret}", f"{tmp_path}/rows/../secret.png", f"zip://0.png::{archive}",
        f"zip://0.png::file://{archive}", f"simplecache::file://{secret}", f"local://{secret}", inside,
    ]  # fmt: skip
    source = write_rows(tmp_path / "rows", [str(path) for path in paths])
    inside.write_bytes(picture(1))
    *refused, own = opened(source)
    assert [(record.picture, record.fault) for record in refused] == [(None, NO_FILE)] * 7
    assert (own.picture, own.fault) == (picture(1), None)
    for path in (inside, f"zip://0.png::{archive}"):  # of a data set that lies elsewhere
        with pytest.raises(Unreadable, match=NO_FILE):
            _stored({"bytes": None, "path": str(path)}, None)
