"""Records encoded at the step that takes them: for sources too large to encode beforehand, and for streams."""

import hashlib
import json
from bisect import bisect_left, bisect_right, insort
from concurrent.futures import ThreadPoolExecutor
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
    once an epoch. A resumed run reads on from the block it was in. A record whose picture turns out bad is passed over,
    and all that follow move up: so the places that were passed belong to where a run is, and are saved with it.
    """

    def __init__(self, source: Source, backbone: Backbone, data: Data, size: Size | None) -> None:
        """size: of the pictures; None where they are not asked for. ValueError for an empty source."""
        self.source, self.backbone, self.data, self.size = source, backbone, data, size
        self.skipped = source.skipped
        if next(source.entries(), None) is None:
            self.skipped.finish()  # which says what is wrong with it
        self.null = backbone.encode_text([""]).to("cpu")
        self.stream = Stream(source, BLOCK)
        self._passed: list[int] = []  # places in the endless order whose records are bad, ascending
        self._pictures: dict[int, np.ndarray] = {}  # of the places that were last looked at

    def records(self, step: int, size: int, seed: int) -> Tensor:
        """The numbers of a step's records in the endless source, (size,) int64; bad ones that are known left out."""
        return torch.tensor(list(self._taken(step, size, seed).values()))

    def names(self, step: int, size: int, seed: int) -> list[str]:
        """The keys of a step's records."""
        return [self._record(number).key for number in self._taken(step, size, seed).values()]

    def look(self, step: int, size: int, seed: int, rows: slice = WHOLE) -> bool:
        """Read some rows of a step; whether all are good. Those that are not are passed over from then on.

        Steps come one after another. The bad of another process's rows are passed over once `skipped` has heard of
        them, and whether there are too many is for who hears all to judge. ValueError where no record is good.
        """
        while True:
            taken = self._taken(step, size, seed)
            bad = [place for place, number in taken.items() if self._record(number).key in self.skipped.why]
            if not bad:
                break
            for place in bad:
                insort(self._passed, place)
            self._refuse_endless()
        length = self.stream.length
        self.skipped.whole |= length is not None and max(taken) + 1 >= length
        return self._decode(dict(list(taken.items())[rows]))

    def batch(self, step: int, size: int, seed: int, rows: slice = WHOLE) -> Batch:
        """The batch of a step, or some rows of it, encoded now. ValueError where no record is good."""
        while not self.look(step, size, seed, rows):
            continue
        taken = dict(list(self._taken(step, size, seed).items())[rows])
        caption, dropped, flipped = chances(step, size, seed)[:, rows]
        x = None
        if self.size is not None:
            mirrored = ((flipped < 0.5) & self.data.flip).tolist()
            pictures = [self._pictures[place] for place in taken]
            x = to_latents(self.backbone, [p[:, ::-1] if m else p for p, m in zip(pictures, mirrored, strict=True)])
        chosen = zip(taken.values(), caption.tolist(), strict=True)
        captions = [pick(self._record(number), chance) for number, chance in chosen]
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
        told |= {"bad": self.skipped.why, "passed": self._passed}
        write_whole(folder / SOURCE, json.dumps(told).encode())  # a file's name may be no UTF-8

    def restore(self, folder: Path) -> None:
        """Go on with what `save` wrote, where that is of the same settings."""
        file = folder / SOURCE
        told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if told.get("data") == self._about():
            self.stream.know(told["usable"])
            self.skipped.add_all(Skipped("", 0, told["bad"], told["seen"]))
            self._passed = told.get("passed", [])

    def _about(self) -> str:
        """The settings that decide which records there are."""
        others = {"bad_limit", "drop_captions", "flip"}
        told = self.data.model_dump(exclude=others, exclude_defaults=True), self.size is not None
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    def _shuffled(self, epoch: int, index: int, seed: int) -> Tensor:
        """The places in an epoch of a block's records, in the order in which they are taken."""
        length, first = self.stream.length, index * BLOCK
        # While it is not known where the epoch ends, this block was read to find out.
        count = len(self.stream.block(epoch, index)) if length is None else min(BLOCK, length - first)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index * 7_919 + epoch)
        return first + torch.randperm(count, generator=generator)

    def _taken(self, step: int, size: int, seed: int) -> dict[int, int]:
        """The places of a step's records in the endless order, with their numbers there."""
        first, last = self._place(step * size), self._place((step + 1) * size - 1) + 1
        self.stream.held = size // BLOCK + 3  # blocks that a step may lie in, with what was passed over
        passed = set(self._passed[bisect_left(self._passed, first) : bisect_left(self._passed, last)])
        numbers: list[int] = []
        while len(numbers) < last - first:
            epoch, place = self.stream.find(start := first + len(numbers))
            order = self._shuffled(epoch, place // BLOCK, seed)[place % BLOCK :][: last - start]
            numbers += (order + start - place).tolist()
        return {place: number for place, number in enumerate(numbers, start=first) if place not in passed}

    def _place(self, rank: int) -> int:
        """The place of a record that so many good ones come before."""
        return rank + bisect_right(range(len(self._passed)), rank, key=lambda index: self._passed[index] - index)

    def _record(self, number: int) -> Record:
        epoch, place = self.stream.find(number)
        return self.stream.block(epoch, place // BLOCK)[place % BLOCK]

    def _decode(self, taken: dict[int, int]) -> bool:
        """Hold the pictures of some places, where they are asked for; whether all of them are good."""
        if self.size is None:
            return True
        self._pictures = {place: picture for place, picture in self._pictures.items() if place in taken}
        asked = {place: self._record(number) for place, number in taken.items() if place not in self._pictures}
        with ThreadPoolExecutor() as pool:
            for place, made in zip(asked, pool.map(self._try, asked.values()), strict=True):
                if isinstance(made, str):
                    self.skipped.note(asked[place].key, made)
                else:
                    self._pictures[place] = made
        return len(self._pictures) == len(taken)

    def _try(self, record: Record) -> np.ndarray | str:
        """A record's picture, or why there is none."""
        assert self.size is not None
        try:
            return decode((record.picture, self.size, False))
        except ValueError as error:
            return record.fault or str(error)

    def _refuse_endless(self) -> None:
        """ValueError where as many records in a row were passed over as there are."""
        length = self.stream.length or len(self._passed) + 1
        if len(self._passed) >= length and self._passed[-1] - self._passed[-length] < length:
            raise ValueError(f"{self.skipped.origin}: no picture of {length:,} records in a row can be read")


def pick(record: Record, chance: float) -> str:
    """One of a record's captions, by weight; chance in [0, 1)."""
    return record.captions[min(bisect_right(list(accumulate(record.weights)), chance), len(record.captions) - 1)]
