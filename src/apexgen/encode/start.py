"""A source encoded before training: into memory, or into a cache on disk that is reused and added to."""

import hashlib
import json
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from apexgen.backbones.base import Backbone
from apexgen.backbones.held import opened_type
from apexgen.config import Data
from apexgen.data.base import Source
from apexgen.data.corpus import Corpus
from apexgen.data.sizes import bucket_sizes
from apexgen.data.skipped import Skipped
from apexgen.encode import keys
from apexgen.encode.fill import Builder, Found
from apexgen.encode.store import Folder, Memory, Store
from apexgen.encode.table import StoredLatents, StoredTexts, Table, as_keys
from apexgen.files import write_whole
from apexgen.interrupt import Stopped, noted_signals
from apexgen.parallel import ALONE, Team
from apexgen.progress import columns
from apexgen.size import Size

NULL = keys.text_key("")
KEPT = "stopped while encoding; what is encoded is kept, and the same command goes on from it"
NOT_KEPT = 'stopped while encoding, which is kept where there is a cache; write data.cache = "FOLDER"'
PARTS = 4  # of a source for each process, so that none waits long for another


def encode_in_memory(source: Source, data: Data, backbone: Backbone, pictures: bool, console: Console) -> Corpus:
    """Encode all of a source and hold it. Raises Stopped where it is asked to stop: nothing is kept."""
    stores = Stores(Memory(), Memory() if pictures else None)
    found, skipped = _fill(source, data, backbone, stores, console, ALONE)
    table = _table(found, skipped, console)
    _keep_null(stores.texts, backbone)
    return _corpus(table, stores, data, skipped)


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


@dataclass(frozen=True)
class Cached:
    """A cache that has all a run needs."""

    stores: Stores
    records: Path  # the run's table
    skipped: Skipped
    told: dict[str, Any]  # records, captions, and what became of texts and pictures now

    def read(self, data: Data) -> Corpus:
        """What a training reads."""
        return _corpus(Table.load(self.records), self.stores, data, self.skipped)


def fill_cache(source: Source, data: Data, backbone: Backbone, pictures: bool, console: Console, team: Team) -> Cached:
    """Encode what the cache lacks, each process its share.

    Beside the shards, the run's records: a table, and a list of what was left out. Raises Stopped where it is asked to
    stop: what is encoded is kept.
    """
    stores = open_stores(data, backbone, pictures)
    shares = team.gather(lambda: _fill(source, data, backbone, stores, console, team))
    sizes = sizes_of(data, backbone) if pictures else []
    file = (Path(str(data.cache)) / f"records-{_digest(data, stores, sizes)}").with_suffix(".safetensors")

    def conclude() -> tuple[Skipped, dict[str, Any]]:
        found, skipped = (reduce(add, each) for each in zip(*shares, strict=True))
        _keep_null(stores.texts, backbone)
        table = _table(found, skipped, console)
        table.save(file)
        told = {"source": str(source), "records": len(table.rows), "captions": len(table.ends), "bad": skipped.why}
        write_whole(file.with_suffix(".json"), json.dumps(told | stores.names(), indent=1).encode())
        told |= {"texts": found.texts.told(), "pictures": found.pictures.told()}
        console.print(f"captions: {found.texts}; pictures: {found.pictures}", highlight=False, soft_wrap=True)
        return skipped, told

    skipped, told = team.by_first(conclude)
    stores.reopen()
    return Cached(stores, file, skipped, told)


def open_stores(data: Data, backbone: Backbone, pictures: bool) -> Stores:
    """The cache's folders for a pipeline, opened."""
    texts, *latents = (
        Folder(path, getattr(torch, data.cache_dtype)) for path in store_folders(data, backbone, pictures)
    )
    return Stores(texts, latents[0] if latents else None)


def store_folders(data: Data, backbone: Backbone, pictures: bool) -> list[Path]:
    """Where a cache keeps a pipeline's texts, and pictures: a changed encoder, or one of another type, has its own."""
    pipeline, family = Path(backbone.pipeline.name_or_path), type(backbone).__name__
    lowered = () if opened_type(backbone.weights) == torch.float32 else ("bfloat16",)  # the VAE is never
    told = (backbone.max_tokens, *(backbone.instruction or ()), *lowered)
    names = [f"texts-{keys.revision(pipeline, keys.TEXT_PARTS, family, *told)}"]
    names += [f"latents-{keys.revision(pipeline, keys.PICTURE_PARTS, family)}"] if pictures else []
    return [Path(str(data.cache)) / f"{name}-{data.cache_dtype}" for name in names]


def sizes_of(data: Data, backbone: Backbone) -> list[Size]:
    """The sizes of the run's pictures: the model's own, and with aspect buckets those of about its area."""
    return bucket_sizes(backbone.sides, backbone.size_multiple, data.aspect, backbone.largest_size)


def _fill(
    source: Source, data: Data, backbone: Backbone, stores: Stores, console: Console, team: Team
) -> tuple[Found, Skipped]:
    """Encode this process's share of a source; what its records came to, and what it left out.

    A source of many parts is shared by them, and each process reads its own; else each reads all, and they share what
    is to be encoded by key.
    """
    parts = source.parts()
    shared = len(parts) >= PARTS * team.count
    source.skipped.readers = team.count if shared else 1

    def mine(key: bytes) -> bool:
        return shared or int.from_bytes(key[:4]) % team.count == team.rank

    builder = Builder(backbone, stores.texts, stores.latents, sizes_of(data, backbone), data.flip, mine)
    own = range(team.rank, len(parts), team.count) if shared else range(len(parts))
    records = ((part, record) for part in own for record in parts[part])
    bare = not console.is_interactive  # where a bar that is gone in the end would leave an empty line
    progress = Progress(*columns(), console=console, transient=True, disable=bare)
    with noted_signals("these records") as asked_to_stop, progress:
        for part, record in progress.track(records, None if shared else source.length(), description="encoding"):
            if asked_to_stop():
                builder.flush()
                raise Stopped(KEPT if data.cache else NOT_KEPT)
            try:
                builder.take(record, part)
            except ValueError as error:
                source.skipped.add(record.key, record.fault or str(error))
    found = builder.finish()
    if not shared and not team.first:
        found = Found(texts=found.texts, pictures=found.pictures)  # the first found the same
    return found, source.skipped


def _table(found: Found, skipped: Skipped, console: Console) -> Table:
    """The table of the good records; what else there was is told of. ValueError where too many are bad."""
    for name, why in found.bad():
        skipped.add(name, why)
    skipped.finish()
    if skipped.why:
        console.print(str(skipped), highlight=False, markup=False, soft_wrap=True)
    return found.table()


def _keep_null(texts: Store, backbone: Backbone) -> None:
    """See to it that the empty prompt is among the texts, as it is."""
    if NULL not in texts:
        c = backbone.encode_text([""]).to("cpu")
        pooled = {} if c.pooled is None else {"pooled": c.pooled[0]}
        texts.add(NULL, {"embeds": c.embeds[0], "mask": c.mask[0]} | pooled)
        texts.flush()


def _corpus(table: Table, stores: Stores, data: Data, skipped: Skipped) -> Corpus:
    return Corpus(
        table.prompts,
        StoredTexts(stores.texts, table.texts),
        table.rows,
        StoredTexts(stores.texts, as_keys([NULL])).select(torch.tensor([0])),
        StoredLatents(stores.latents, table.pictures) if stores.latents is not None else None,
        table.weights,
        table.buckets,
        data.drop_captions,
        data.flip,
        skipped,
        table.keys,
        table.identity,
    )


def _digest(*what: Any) -> str:
    """A short name for a run's records: another source, setting, model or size has another table."""
    data, stores, sizes = what
    told = data.model_dump(exclude={"cache", "drop_captions", "bad_limit"}), stores.names(), sizes
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
