"""Records encoded at the step that takes them: for sources too large to encode beforehand, and for streams."""

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate, chain, count, islice

import numpy as np
import torch
from torch import Tensor

from apexgen.backbones.base import Backbone
from apexgen.condition import Condition
from apexgen.config import Data
from apexgen.data.base import Source
from apexgen.data.corpus import WHOLE, chances
from apexgen.data.record import Record
from apexgen.encode.fill import decode, to_latents
from apexgen.objectives.base import Batch
from apexgen.size import Size

BLOCK = 1024  # records that are shuffled together, and held as they are stored


class Live:
    """A source read over and over, its parts and then blocks of its records shuffled; nothing encoded is kept.

    Which record comes at a step is a function of the source, the step and the seed, as in a Corpus; a resumed run
    reads on from the block it was in. A record whose picture is bad gives its place to the next one of its block.
    """

    def __init__(self, source: Source, backbone: Backbone, data: Data, size: Size | None) -> None:
        """size: of the pictures; None where they are not asked for. ValueError for an empty source."""
        self.source, self.backbone, self.data, self.size = source, backbone, data, size
        self.skipped = source.skipped
        if next(source.records(), None) is None:
            self.skipped.finish()  # which says what is wrong with it
        self.null = backbone.encode_text([""]).to("cpu")
        self.length = min(BLOCK, source.length() or BLOCK)  # of a block
        self._blocks: dict[int, list[Record]] = {}
        self._next, self._reading = 0, self._from(0)

    def records(self, step: int, size: int, seed: int) -> Tensor:
        """The places of a step's records in the endless source, (size,) int64."""
        first, last = step * size // self.length, (step * size + size - 1) // self.length
        order = torch.cat([block * self.length + self._shuffled(block, seed) for block in range(first, last + 1)])
        return order[step * size - first * self.length :][:size]

    def batch(self, step: int, size: int, seed: int, rows: slice = WHOLE) -> Batch:
        """The batch of a step, or some rows of it, encoded now. ValueError where too many records are bad."""
        places = self.records(step, size, seed)[rows].tolist()
        caption, dropped, flipped = chances(step, size, seed)[:, rows]
        if self.size is None:
            chosen, x = [self._block(place // self.length)[place % self.length] for place in places], None
        else:
            read = [self._read(place) for place in places]
            chosen, pictures = [record for record, _ in read], [picture for _, picture in read]
            mirrored = ((flipped < 0.5) & self.data.flip).tolist()
            x = to_latents(self.backbone, [p[:, ::-1] if m else p for p, m in zip(pictures, mirrored, strict=True)])
        captions = [pick(record, chance) for record, chance in zip(chosen, caption.tolist(), strict=True)]
        c = self.backbone.encode_text(captions).to("cpu")
        return Batch(c=c.drop(dropped < self.data.drop_captions, self.null), null=self.null, x=x)

    def examples(self, count: int) -> tuple[list[str], Condition]:
        """The prompts of the first records, with their conditions."""
        prompts = [record.captions[0] for record in islice(self.source.records(), count)]
        return prompts, self.backbone.encode_text(prompts).to("cpu")

    def _shuffled(self, block: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + block)
        return torch.randperm(self.length, generator=generator)

    def _block(self, number: int) -> list[Record]:
        """The records of a block; it and the one before are held."""
        if number not in self._blocks:
            if number != self._next:
                self._reading = self._from(number * self.length)
            held = {number - 1: self._blocks[number - 1]} if number - 1 in self._blocks else {}
            self._blocks = held | {number: list(islice(self._reading, self.length))}
            self._next = number + 1
        return self._blocks[number]

    def _from(self, start: int) -> Iterator[Record]:
        """The source without an end, from a place on; every epoch has its parts in another order."""
        epoch, passed = divmod(start, self._usable) if start else (0, 0)
        parts = self.source.parts()
        for number in count(epoch):
            order = torch.randperm(len(parts), generator=torch.Generator().manual_seed(number)).tolist()
            entries = chain.from_iterable(parts[part].entries() for part in order)
            yield from (entry.record() for entry in islice(entries, passed, None))
            passed = 0

    @cached_property
    def _usable(self) -> int:
        """Records of an epoch; no picture is read to count them."""
        return sum(1 for _ in self.source.entries())

    def _read(self, place: int) -> tuple[Record, np.ndarray]:
        """The record at a place, or the next of its block whose picture can be read."""
        assert self.size is not None
        block, first = self._block(place // self.length), place % self.length
        for record in block[first:] + block[:first]:
            try:
                return record, decode((record.picture, self.size, False))
            except ValueError as error:
                self.skipped.add(record.key, str(error))
        raise ValueError(f"data.source = {self.data.source!r}: no picture of {len(block)} records in a row can be read")


def pick(record: Record, chance: float) -> str:
    """One of a record's captions, by weight; chance in [0, 1)."""
    return record.captions[min(bisect_right(list(accumulate(record.weights)), chance), len(record.captions) - 1)]
