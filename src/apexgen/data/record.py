"""A record: what a source gives, before anything is decoded or encoded."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """Captions, and the picture that they describe, where there is one."""

    key: str  # unique in its source and stable between runs
    captions: tuple[str, ...]  # one or several
    weights: tuple[float, ...]  # how often each caption is drawn; same length, sum 1
    picture: bytes | None  # the stored file's bytes; None: a prompt alone
    fault: str | None = None  # why the picture could not be read
