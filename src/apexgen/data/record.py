"""A record: what a source gives, before anything is decoded or encoded."""

import hashlib
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Record:
    """Captions, and the picture that they describe, where there is one."""

    key: str  # unique in its source and stable between runs
    captions: tuple[str, ...]  # one or several
    weights: tuple[float, ...]  # how often each caption is drawn; same length, sum 1
    picture: bytes | None  # the stored file's bytes; None: a prompt alone

    def caption(self, seed: int, epoch: int) -> str:
        """The caption that is drawn in an epoch: a function of the seed, the epoch and the key alone."""
        digest = hashlib.blake2b(f"{seed} {epoch} {self.key}".encode(), digest_size=8).digest()
        chance = int.from_bytes(digest) / 2**64
        return self.captions[min(bisect_right(list(accumulate(self.weights)), chance), len(self.captions) - 1)]
