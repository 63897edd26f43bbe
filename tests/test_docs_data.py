"""The tables of docs/data.md read small files that lie as the page says; the hub's own alone is only parsed."""

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

import snippets
from apexgen.config import load_run
from apexgen.data import open_source
from snippets import ROOT
from stored import picture
from test_sources import WORDS, write_metadata, write_named_folder, write_parquet, write_sharegpt, write_tars

TABLES = [block for block in snippets.blocks(ROOT / "docs/data.md") if block.language == "toml"]
OF_THE_HUB = [block for block in TABLES if 'source = "hub:' in block.text]
SHORT = {"scenes": {"limit": 3}}  # the embedded world has no end


def write_flux(folder):
    """A part of FLUX-Reason-6M, its last picture not clear enough."""
    count = len(WORDS)
    table = {
        "image": [picture(number) for number in range(count)],
        "caption_detail": WORDS,
        "caption_style": ["in oil"] * count,
        "score_image_clarity": [9.0] * (count - 1) + [8.0],
        "bool_caption_original": [True] * count,
    }
    folder.mkdir()
    parquet.write_table(pa.table(table), folder / "0.parquet")


def write_sources(place, beside_a_table):
    """Every source that the page names, under the page's names."""
    (place / "prompts.txt").write_text("\n".join(WORDS), encoding="utf-8")
    if beside_a_table:
        write_metadata(place / "photos", "jsonl")
    else:
        write_named_folder(place / "photos", "")
    write_parquet(place / "parquet", "authors")
    write_tars(place / "shards", "txt")
    write_sharegpt(place / "ShareGPT-4o-Image", "")
    write_flux(place / "Aesthetics-Part01")


@pytest.mark.parametrize("block", [block for block in TABLES if block not in OF_THE_HUB], ids=str)
def test_a_table_of_the_page_reads_what_lies_as_the_page_says(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_sources(tmp_path, "metadata.jsonl" in block.text)
    (tmp_path / "run.toml").write_text(block.text)
    data = load_run(tmp_path / "run.toml").data
    data = data.model_copy(update=SHORT.get(data.source, {}))
    source = open_source(data, pictures="prompts.txt" not in block.text)
    records = list(source)
    assert not source.skipped.why and all(record.captions for record in records)
    assert all(record.picture for record in records) == ("prompts.txt" not in block.text)
    if data.filter:  # what is not clear enough is left out, and each caption has its weight
        assert [record.captions for record in records] == [(text, "in oil") for text in WORDS[:-1]]
        assert {record.weights for record in records} == {(0.75, 0.25)}
    elif data.source != "scenes":
        assert {caption for record in records for caption in record.captions} == set(WORDS)


def test_the_page_has_one_table_that_asks_the_hub():
    assert len(OF_THE_HUB) == 1 and len(TABLES) > 9
