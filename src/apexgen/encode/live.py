"""Records encoded at the step that takes them: for sources too large to encode beforehand, and for streams."""

import hashlib
import json
from bisect import bisect_right
from itertools import accumulate, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from apexgen.backbones.base import Backbone
from apexgen.condition import Condition
from apexgen.config import Data
from apexgen.data.base import Source
from apexgen.data.corpus import SOURCE, WHOLE, chances
from apexgen.data.record import Record
from apexgen.data.skipped import Skipped
from apexgen.data.stream import Stream
from apexgen.encode.fill import decode, to_latents
from apexgen.files import write_whole
from apexgen.objectives.base import Batch
from apexgen.size import Size

BLOCK = 1024  # records that are shuffled together, and held as they are stored


class Live:
    """A source read over and over, its parts and then blocks of its records shuffled; nothing encoded is kept.

    Which record comes at a step is a function of the source, the step and the seed, as in a Corpus, and every one comes
    once an epoch. A resumed run reads on from the block it was in. A record whose picture is bad gives its place to the
    next one of its block.
    """

    def __init__(self, source: Source, backbone: Backbone, data: Data, size: Size | None) -> None:
        """size: of the pictures; None where they are not asked for. ValueError for an empty source."""
        self.source, self.backbone, self.data, self.size = source, backbone, data, size
        self.skipped = source.skipped
        if next(source.entries(), None) is None:
            self.skipped.finish()  # which says what is wrong with it
        self.null = backbone.encode_text([""]).to("cpu")
        self.stream = Stream(source, BLOCK)

    @property
    def reads(self) -> bool:
        """Yes, at every step."""
        return True

    def records(self, step: int, size: int, seed: int) -> Tensor:
        """The numbers of a step's records in the endless source, (size,) int64."""
        taken, first, last = [], step * size, (step + 1) * size
        while first < last:
            epoch, place = self.stream.find(first)
            order = self._shuffled(epoch, place // BLOCK, seed)[place % BLOCK :][: last - first]
            taken.append(order + first - place)
            first += len(order)
        return torch.cat(taken)

    def names(self, step: int, size: int, seed: int) -> list[str]:
        """The keys of a step's records."""
        return [self._good(self._block(number)).key for number in self.records(step, size, seed).tolist()]

    def batch(self, step: int, size: int, seed: int, rows: slice = WHOLE) -> Batch:
        """The batch of a step, or some rows of it, encoded now.

        ValueError where no picture of a whole block of records can be read.
        """
        numbers = self.records(step, size, seed)[rows].tolist()
        caption, dropped, flipped = chances(step, size, seed)[:, rows]
        if self.size is None:
            chosen, x = [self._block(number)[0] for number in numbers], None
        else:
            read = [self._read(number) for number in numbers]
            chosen, pictures = [record for record, _ in read], [picture for _, picture in read]
            mirrored = ((flipped < 0.5) & self.data.flip).tolist()
            x = to_latents(self.backbone, [p[:, ::-1] if m else p for p, m in zip(pictures, mirrored, strict=True)])
        length = self.stream.length
        self.skipped.whole |= length is not None and (step + 1) * size >= length
        captions = [pick(record, chance) for record, chance in zip(chosen, caption.tolist(), strict=True)]
        c = self.backbone.encode_text(captions).to("cpu")
        return Batch(c=c.drop(dropped < self.data.drop_captions, self.null), null=self.null, x=x)

    def examples(self, count: int) -> tuple[list[str], Condition]:
        """The prompts of the first records, with their conditions."""
        prompts = [record.captions[0] for record in islice(self.source.records(), count)]
        return prompts, self.backbone.encode_text(prompts).to("cpu")

    def save(self, folder: Path) -> None:
        """Write what was left out, and how far each part of the source was read: a resumed run passes over it."""
        self.skipped.write(folder)
        told = {"data": self._about(), "usable": dict(self.stream.counts), "seen": self.skipped.counts}
        write_whole(folder / SOURCE, json.dumps(told | {"bad": self.skipped.why}, ensure_ascii=False).encode())

    def restore(self, folder: Path) -> None:
        """Go on with what `save` wrote, where that is of the same settings."""
        file = folder / SOURCE
        told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if told.get("data") == self._about():
            self.stream.know(told["usable"])
            self.skipped.add_all(Skipped("", 0, told["bad"], told["seen"]))

    def _about(self) -> str:
        """The settings that decide which records there are."""
        told = self.data.model_dump(exclude={"bad_limit", "drop_captions", "flip"}), self.size is not None
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    def _shuffled(self, epoch: int, index: int, seed: int) -> Tensor:
        """The places in an epoch of a block's records, in the order in which they are taken."""
        length, first = self.stream.length, index * BLOCK
        # While it is not known where the epoch ends, this block was read to find out.
        count = len(self.stream.block(epoch, index)) if length is None else min(BLOCK, length - first)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index * 7_919 + epoch)
        return first + torch.randperm(count, generator=generator)

    def _block(self, number: int) -> list[Record]:
        """The records of a number's block, from that one on and around."""
        epoch, place = self.stream.find(number)
        block, first = self.stream.block(epoch, place // BLOCK), place % BLOCK
        return block[first:] + block[:first]

    def _good(self, block: list[Record]) -> Record:
        """The first of some records that is not known to be bad."""
        return next((record for record in block if record.key not in self.skipped.why), block[0])

    def _read(self, number: int) -> tuple[Record, np.ndarray]:
        """The record of a number, or the next of its block whose picture can be read."""
        assert self.size is not None
        block = self._block(number)
        for record in block:
            try:
                return record, decode((record.picture, self.size, False))
            except ValueError as error:
                self.skipped.add(record.key, record.fault or str(error))
        raise ValueError(f"{self.skipped.origin}: no picture of {len(block)} records in a row can be read")


def pick(record: Record, chance: float) -> str:
    """One of a record's captions, by weight; chance in [0, 1)."""
    return record.captions[min(bisect_right(list(accumulate(record.weights)), chance), len(record.captions) - 1)]
