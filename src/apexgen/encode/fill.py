"""From a source's records to stores: what they lack is encoded, a chunk at once, and what is bad is told of."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from apexgen.backbones.base import Backbone
from apexgen.data.picture import decode_picture
from apexgen.data.record import Record
from apexgen.data.sizes import nearest_size, picture_sides
from apexgen.encode import keys
from apexgen.encode.store import Entry, Store
from apexgen.encode.table import Table, as_keys, as_words
from apexgen.generate import to_tensor
from apexgen.objectives.base import GIVE_PICTURES
from apexgen.size import Size

TEXTS = 256  # encoded at once
PICTURES, PIXELS = 256, 1 << 22  # encoded at once, at most
NO_PICTURE = f"it has no picture and the objective needs one; {GIVE_PICTURES}"

Thing = TypeVar("Thing")
Picture = tuple[bytes | None, Size, bool]  # the stored bytes, the size it is cut to, whether it is mirrored


@dataclass
class Counts:
    """What became of distinct captions or pictures."""

    encoded: int = 0
    reused: int = 0
    bad: dict[bytes, str] = field(default_factory=dict)  # why, by key

    def told(self) -> dict[str, int]:
        """How many of each."""
        return {"encoded": self.encoded, "reused": self.reused, "bad": len(self.bad)}

    def __str__(self) -> str:
        return f"{self.encoded:,} encoded, {self.reused:,} reused, {len(self.bad):,} bad"


def sum_counts(counts: Iterable[Counts]) -> Counts:
    """The counts of several."""
    total = Counts()
    for each in counts:
        total.encoded += each.encoded
        total.reused += each.reused
        total.bad |= each.bad
    return total


class Filler(Generic[Thing]):
    """Encodes what a store lacks and this process is to do; what can't be encoded is bad, and the rest goes on."""

    def __init__(
        self,
        store: Store,
        encode: Callable[[Sequence[Thing]], Iterator[Entry]],
        chunk: int,
        mine: Callable[[bytes], bool],
    ) -> None:
        self.store, self.encode, self.chunk, self.mine = store, encode, chunk, mine
        self.counts = Counts()
        self._asked: set[bytes] = set()
        self._waiting: dict[bytes, Thing] = {}

    def ask(self, key: bytes, thing: Thing) -> None:
        """See to it that the store will hold an entry."""
        if key in self._asked:
            return
        self._asked.add(key)
        if not self.mine(key):
            return
        if key in self.store:
            self.counts.reused += 1
            return
        self._waiting[key] = thing
        if len(self._waiting) == self.chunk:
            self.finish()

    def finish(self) -> None:
        """Encode what waits: together, or one by one where something among it is bad."""
        waiting, self._waiting = self._waiting, {}
        try:
            self._encode(waiting)
        except ValueError:
            for key, thing in waiting.items():
                try:
                    self._encode({key: thing})
                except ValueError as error:
                    self.counts.bad[key] = str(error)

    def _encode(self, waiting: dict[bytes, Thing]) -> None:
        if not waiting:
            return
        for key, entry in zip(waiting, self.encode(list(waiting.values())), strict=True):
            self.store.add(key, entry)
            self.counts.encoded += 1


def encode_texts(backbone: Backbone, captions: Sequence[str]) -> Iterator[Entry]:
    """The condition of each caption, without the tokens after its last that counts."""
    c = backbone.encode_text(captions).to("cpu")
    for row, mask in enumerate(c.mask):
        length = int(mask.nonzero().max()) + 1 if mask.any() else 1
        pooled = {} if c.pooled is None else {"pooled": c.pooled[row].clone()}
        yield {"embeds": c.embeds[row, :length].clone(), "mask": mask[:length].clone()} | pooled


def encode_pictures(backbone: Backbone, pictures: Sequence[Picture]) -> Iterator[Entry]:
    """The latents of pictures of one size. ValueError for one that can't be read."""
    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(decode, pictures))
    return ({"latents": latents.clone()} for latents in to_latents(backbone, decoded))


def decode(picture: Picture) -> np.ndarray:
    """A stored picture as (H, W, 3) in [0, 1] of its size. ValueError for one that can't be read, or none."""
    stored, size, mirrored = picture
    if stored is None:
        raise ValueError(NO_PICTURE)
    decoded = decode_picture(stored, size)
    return decoded[:, ::-1] if mirrored else decoded


def to_latents(backbone: Backbone, pictures: Sequence[np.ndarray]) -> Tensor:
    """Latents (B, C, h, w) of pictures (H, W, 3) in [0, 1] of one size."""
    return backbone.encode_image(to_tensor(np.stack(pictures)).to(backbone.device)).cpu()


class Listed(NamedTuple):
    """A record, by what it needs of the stores."""

    name: str
    texts: tuple[bytes, ...]  # keys
    weights: tuple[float, ...]
    pictures: tuple[bytes, ...]  # keys: of the picture, and of its mirror image where there is one
    bucket: int


@dataclass
class Found:
    """What some records came to."""

    captions: dict[bytes, str] = field(default_factory=dict)  # the distinct ones, by key
    parts: dict[int, list[Listed]] = field(default_factory=dict)  # by the number of the source's part
    texts: Counts = field(default_factory=Counts)
    pictures: Counts = field(default_factory=Counts)

    def __add__(self, other: "Found") -> "Found":
        return Found(
            self.captions | other.captions,
            self.parts | other.parts,
            sum_counts((self.texts, other.texts)),
            sum_counts((self.pictures, other.pictures)),
        )

    def records(self) -> list[Listed]:
        """All of them, in the source's order."""
        return [record for part in sorted(self.parts) for record in self.parts[part]]

    def bad(self) -> list[tuple[str, str]]:
        """The records that can't be used, each with a reason."""
        bad = self.texts.bad | self.pictures.bad
        reasons = [(one.name, [bad[key] for key in one.texts + one.pictures if key in bad]) for one in self.records()]
        return [(name, why[0]) for name, why in reasons if why]

    def table(self) -> Table:
        """The table of the records that are not bad."""
        bad = self.texts.bad | self.pictures.bad
        kept = [record for record in self.records() if not any(key in bad for key in record.texts + record.pictures)]
        most, sides = max(len(record.texts) for record in kept), max(len(record.pictures) for record in kept)
        row = {key: number for number, key in enumerate(dict.fromkeys(key for record in kept for key in record.texts))}
        letters, ends = as_words([self.captions[key] for key in row])
        named, name_ends = as_words([record.name for record in kept])
        used = sorted({record.bucket for record in kept})
        rows = [[row[key] for key in record.texts] for record in kept]
        return Table(
            texts=as_keys(list(row)),
            letters=letters,
            ends=ends,
            named=named,
            name_ends=name_ends,
            rows=torch.tensor([each + each[:1] * (most - len(each)) for each in rows]),
            weights=torch.tensor([record.weights + (0.0,) * (most - len(record.weights)) for record in kept]),
            pictures=as_keys([record.pictures[side] for side in range(sides) for record in kept]),
            buckets=torch.tensor([used.index(record.bucket) for record in kept]),
        )


class Builder:
    """Takes the records of a source one after another; in the end, the stores are filled and what was found is told."""

    def __init__(
        self,
        backbone: Backbone,
        texts: Store,
        latents: Store | None,
        sizes: Sequence[Size],
        flip: bool,
        mine: Callable[[bytes], bool],
    ) -> None:
        """sizes: of the buckets. latents: None where pictures are not asked for. mine: which keys are encoded here."""
        self.sizes, self.sides = sizes, (False, True) if flip else (False,)
        self._texts = Filler(texts, lambda captions: encode_texts(backbone, captions), TEXTS, mine)
        self._pictures: list[Filler[Picture]] = []
        if latents is not None:
            for height, width in sizes:
                chunk = max(1, min(PICTURES, PIXELS // (height * width)))
                self._pictures.append(
                    Filler(latents, lambda pictures: encode_pictures(backbone, pictures), chunk, mine)
                )
        self._found = Found()

    def take(self, record: Record, part: int) -> None:
        """Ask for what a record of a part needs. ValueError where its picture is missing or has no readable header."""
        bucket, pictures = self._ask_picture(record.picture) if self._pictures else (0, ())
        drawn = [(text, weight) for text, weight in zip(record.captions, record.weights, strict=True) if weight > 0]
        texts, weights = tuple(keys.text_key(text) for text, _ in drawn), tuple(weight for _, weight in drawn)
        for key, (text, _) in zip(texts, drawn, strict=True):
            self._texts.ask(key, text)
            self._found.captions.setdefault(key, text)
        self._found.parts.setdefault(part, []).append(Listed(record.key, texts, weights, pictures, bucket))

    def _ask_picture(self, stored: bytes | None) -> tuple[int, tuple[bytes, ...]]:
        if stored is None:
            raise ValueError(NO_PICTURE)
        bucket = self.sizes.index(nearest_size(picture_sides(stored), self.sizes)) if len(self.sizes) > 1 else 0
        content, size, asked = keys.picture_content(stored), self.sizes[bucket], []
        for mirrored in self.sides:
            asked.append(keys.picture_key(content, size, mirrored))
            self._pictures[bucket].ask(asked[-1], (stored, size, mirrored))
        return bucket, tuple(asked)

    def flush(self) -> None:
        """Keep what is encoded."""
        for filler in (self._texts, *self._pictures):
            filler.store.flush()

    def finish(self) -> Found:
        """Encode what waits and flush the stores; what there is."""
        for filler in (self._texts, *self._pictures):
            filler.finish()
        self.flush()
        self._found.texts = self._texts.counts
        self._found.pictures = sum_counts(filler.counts for filler in self._pictures)
        return self._found
