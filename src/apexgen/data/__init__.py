"""Data: sources of records, and encoded records in batches."""

from apexgen.data.corpus import Batches, Corpus, index_prompts
from apexgen.data.picture import decode_picture
from apexgen.data.record import Record
from apexgen.data.source import Source, open_source

__all__ = ["Batches", "Corpus", "Record", "Source", "decode_picture", "index_prompts", "open_source"]
