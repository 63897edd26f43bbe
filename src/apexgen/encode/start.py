"""A source encoded before training: into memory, or into a cache on disk that is reused and added to."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from apexgen.backbones.base import Backbone
from apexgen.config import Data
from apexgen.data.base import Source
from apexgen.data.corpus import Corpus
from apexgen.data.sizes import Size, bucket_sizes
from apexgen.data.skipped import Skipped
from apexgen.encode import keys
from apexgen.encode.fill import Builder, Counts, sum_counts
from apexgen.encode.processes import processes
from apexgen.encode.store import Folder, Memory, Store
from apexgen.encode.table import Prompts, StoredLatents, StoredTexts, Table
from apexgen.files import write_whole


def encode_in_memory(source: Source, data: Data, backbone: Backbone, pictures: bool, console: Console) -> Corpus:
    """Encode all of a source and hold it."""
    stores = Stores(Memory(), Memory() if pictures else None)
    builder = Builder(backbone, stores.texts, stores.latents, sizes_of(data, backbone), data.flip, lambda key: True)
    texts, latents = _walk(source, builder, console)
    return _corpus(_table(source, builder, texts, latents, console), stores, backbone, data, source.skipped)


def encode_to_cache(source: Source, data: Data, backbone: Backbone, pictures: bool, console: Console) -> Corpus:
    """Encode what the cache lacks, each process its share by key, and read what the run needs from it.

    Beside the shards, the run's records: a table, and a list of what was left out.
    """
    from accelerate.utils import gather_object

    ranks, folder = processes(), Path(str(data.cache))
    console = console if ranks.is_main_process else Console(quiet=True)
    stores = open_stores(data, backbone, pictures)

    def mine(key: bytes) -> bool:
        return int.from_bytes(key[:4]) % ranks.num_processes == ranks.process_index

    builder = Builder(backbone, stores.texts, stores.latents, sizes_of(data, backbone), data.flip, mine)
    shares = gather_object([_walk(source, builder, console)])  # which also waits for every process
    stores.reopen()
    texts, latents = (sum_counts(each) for each in zip(*shares, strict=True))
    table = _table(source, builder, texts, latents, console)
    name = folder / f"records-{_digest(data, stores, pictures)}"
    if ranks.is_main_process:
        table.save(name.with_suffix(".safetensors"))
        said = {
            "source": data.source,
            "records": len(table.rows),
            "captions": len(table.ends),
            "bad": source.skipped.why,
        }
        write_whole(name.with_suffix(".json"), json.dumps(said | stores.names(), indent=1).encode())
        console.print(f"captions: {texts}; pictures: {latents}", highlight=False, soft_wrap=True)
    ranks.wait_for_everyone()
    return _corpus(Table.load(name.with_suffix(".safetensors")), stores, backbone, data, source.skipped)


@dataclass(frozen=True)
class Stores:
    """Where captions and pictures go."""

    texts: Store
    latents: Store | None

    def reopen(self) -> None:
        """See what other processes have added."""
        for store in (self.texts, self.latents):
            if isinstance(store, Folder):
                store.reopen()

    def names(self) -> dict[str, str]:
        """The folders of a cache."""
        named = {"texts": self.texts, "latents": self.latents}
        return {name: store.path.name for name, store in named.items() if isinstance(store, Folder)}


def open_stores(data: Data, backbone: Backbone, pictures: bool) -> Stores:
    """The cache's folders for a pipeline: a changed text encoder or autoencoder has one of its own."""
    folder, dtype = Path(str(data.cache)), getattr(torch, data.cache_dtype)
    pipeline, family = Path(backbone.pipeline.name_or_path), type(backbone).__name__
    texts = keys.revision(pipeline, keys.TEXT_PARTS, family, backbone.max_tokens)
    latents = keys.revision(pipeline, keys.PICTURE_PARTS, family)
    return Stores(
        Folder(folder / f"texts-{texts}-{data.cache_dtype}", dtype),
        Folder(folder / f"latents-{latents}-{data.cache_dtype}", dtype) if pictures else None,
    )


def sizes_of(data: Data, backbone: Backbone) -> list[Size]:
    """The sizes of the run's pictures: the model's own, and with aspect buckets those of about its area."""
    size = backbone.size or backbone.native_size
    return bucket_sizes(size, backbone.size_multiple, data.aspect, backbone.largest_size)


def _walk(source: Source, builder: Builder, console: Console) -> tuple[Counts, Counts]:
    """Give every record to a builder; what became of captions and pictures."""
    columns = (TextColumn("encoding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for record in progress.track(source, total=source.length()):
            try:
                builder.take(record)
            except ValueError as error:
                source.skipped.add(record.key, str(error))
        return builder.finish()


def _table(source: Source, builder: Builder, texts: Counts, latents: Counts, console: Console) -> Table:
    """The table of the good records; what else there was is told of. ValueError where too many are bad."""
    for name, why in builder.bad(texts, latents):
        source.skipped.add(name, why)
    source.skipped.finish()
    if source.skipped.why:
        console.print(str(source.skipped), highlight=False, markup=False, soft_wrap=True)
    return builder.table(source.skipped.why)


def _corpus(table: Table, stores: Stores, backbone: Backbone, data: Data, skipped: Skipped) -> Corpus:
    return Corpus(
        Prompts(table),
        StoredTexts(stores.texts, table.texts),
        table.rows,
        backbone.encode_text([""]).to("cpu"),
        StoredLatents(stores.latents, table.pictures) if stores.latents is not None else None,
        table.weights,
        table.buckets,
        data.drop_captions,
        data.flip,
        skipped,
    )


def _digest(*what: Any) -> str:
    """A short name for a run's records: another source, setting or model has another table."""
    data, stores, pictures = what
    told = data.model_dump(exclude={"cache", "drop_captions", "bad_limit"}), stores.names(), pictures
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
