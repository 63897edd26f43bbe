"""Data: sources of records, and encoded records in batches."""

from apexgen.data.base import Source
from apexgen.data.corpus import Batches, Corpus, Reading, index_prompts
from apexgen.data.picture import decode_picture
from apexgen.data.record import Record
from apexgen.data.skipped import Skipped
from apexgen.data.source import open_source

__all__ = [
    "Batches", "Corpus", "Reading", "Record", "Skipped", "Source", "decode_picture", "index_prompts", "open_source",
]  # fmt: skip
