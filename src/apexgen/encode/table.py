"""Which captions and pictures a source's records have, by key: the part of a corpus that is not encoded."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from apexgen.condition import Condition
from apexgen.encode.keys import BYTES
from apexgen.encode.store import Store
from apexgen.files import write_whole


@dataclass(frozen=True)
class Table:
    """N records with up to K captions each, T distinct captions. Written to a file it is mapped, not read."""

    texts: Tensor  # (T, 16) uint8: keys
    letters: Tensor  # (sum of lengths,) uint8: the captions in UTF-8, one after another
    ends: Tensor  # (T,) int64: where each of them ends
    named: Tensor  # (sum of lengths,) uint8: what the source calls each record, likewise
    name_ends: Tensor  # (N,) int64
    rows: Tensor  # (N, K) int64: each record's captions
    weights: Tensor  # (N, K) float32: how often each is drawn; 0 where a record has fewer
    pictures: Tensor  # (N or, with mirrored ones, 2 N, 16) uint8: keys; (0, 16) for prompts alone
    buckets: Tensor  # (N,) int64

    def save(self, file: Path) -> None:
        """Write the table, whole or not at all."""
        write_whole(file, save({each.name: getattr(self, each.name) for each in fields(self)}))

    @staticmethod
    def load(file: Path) -> "Table":
        """The table of a file, mapped."""
        return Table(**load_file(file))

    @property
    def prompts(self) -> "Words":
        """The distinct captions."""
        return Words(self.letters, self.ends)

    @property
    def keys(self) -> "Words":
        """Each record's, of its source."""
        return Words(self.named, self.name_ends)

    @property
    def identity(self) -> str:
        """A digest of which records there are, in which order and buckets: what decides when each of them comes."""
        digest = hashlib.sha256()
        for column in (self.named, self.name_ends, self.buckets):
            digest.update(column.numpy().tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Words(Sequence[str]):
    """Texts that are read when asked for."""

    letters: Tensor  # uint8: UTF-8, one text after another
    ends: Tensor  # int64: where each of them ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> str:  # type: ignore[override]
        first = int(self.ends[row - 1]) if row else 0
        return bytes(self.letters[first : int(self.ends[row])].numpy()).decode()


@dataclass(frozen=True)
class StoredTexts:
    """The conditions of a store by row, padded to the longest that is asked for."""

    store: Store
    keys: Tensor  # (T, 16) uint8

    def select(self, rows: Tensor) -> Condition:
        entries = [self.store[key(self.keys, row)] for row in rows.tolist()]
        one = [
            Condition(e["embeds"][None], e["mask"][None], e["pooled"][None] if "pooled" in e else None) for e in entries
        ]
        return Condition.concatenate(one)


@dataclass(frozen=True)
class StoredLatents:
    """The latents of a store by row; the rows asked for at once share a size."""

    store: Store
    keys: Tensor  # (N or 2 N, 16) uint8

    def __getitem__(self, rows: Tensor) -> Tensor:
        return torch.stack([self.store[key(self.keys, row)]["latents"] for row in rows.tolist()])


def as_words(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The letters and the ends of Words."""
    words = [text.encode() for text in texts]
    return as_bytes(b"".join(words)), torch.tensor([len(word) for word in words]).cumsum(0)


def key(keys: Tensor, row: int) -> bytes:
    """A row of keys as bytes."""
    return bytes(keys[row].numpy())


def as_keys(keys: Sequence[bytes]) -> Tensor:
    """Keys as (len(keys), 16) uint8."""
    return as_bytes(b"".join(keys)).reshape(len(keys), BYTES)


def as_bytes(content: bytes) -> Tensor:
    """Bytes as a tensor of their own."""
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy())
