"""From a source of prompts, or of pictures with captions, to what a training reads."""

from typing import Any

from rich.console import Console

from apexgen.backbones.base import Backbone
from apexgen.config import Data
from apexgen.data.base import First
from apexgen.data.corpus import Batches
from apexgen.data.files import PromptsSource
from apexgen.data.source import Source, open_source
from apexgen.encode.live import Live
from apexgen.encode.prompts import check_prompts, given_prompts, probe_prompts, prompts_in
from apexgen.encode.start import encode_in_memory, fill_cache
from apexgen.objectives.base import PROMPTS_ONLY
from apexgen.parallel import ALONE, Team

__all__ = ["check_prompts", "count_records", "encode", "encode_cache", "given_prompts", "probe_prompts", "prompts_in"]


def encode(
    data: Data, backbone: Backbone, pictures: bool, console: Console | None = None, team: Team = ALONE
) -> Batches:
    """Encode a source as the settings say: into memory, into a cache, or each step anew.

    pictures: whether they are asked for. Raises ValueError, one line, for a source that is missing, empty or without
    pictures where they are asked for, for too many bad records, and for settings of pictures where none are; Stopped
    where a signal asked for it.
    """
    source = _open(data, pictures)
    quiet = console or Console(quiet=True)
    if data.encode == "step":
        return Live(source, backbone, data, backbone.sides if pictures else None)
    if data.cache is None:
        held: list[Batches] = []
        team.by_each(lambda: held.append(encode_in_memory(source, data, backbone, pictures, quiet)))  # or all stop
        return held[0]
    return fill_cache(source, data, backbone, pictures, quiet, team).read(data)


def encode_cache(data: Data, backbone: Backbone, pictures: bool, console: Console, team: Team) -> dict[str, Any]:
    """Fill a source's cache; how many records and captions it has, and what became of texts and pictures now.

    ValueError for settings of pictures where none are read, and for a file of prompts where they are asked for.
    """
    return fill_cache(_open(data, pictures), data, backbone, pictures, console, team).told


def count_records(data: Data) -> int:
    """How many records a source has; ValueError for one that is missing or empty."""
    source = open_source(data, pictures=False)
    length = source.length()
    if length is None:
        length = sum(1 for _ in source.entries())
        source.skipped.finish()
    return length


def _open(data: Data, pictures: bool) -> Source:
    """The source of the settings. ValueError for a file of prompts where pictures are asked for."""
    _check(data, pictures)
    source = open_source(data, pictures)
    whole = source.source if isinstance(source, First) else source
    if pictures and all(isinstance(part, PromptsSource) for part in whole.parts()):
        next(whole.entries(), None)  # which tells of a file that is no text
        raise ValueError(f"{source.skipped.origin}: {PROMPTS_ONLY}")
    return source


def _check(data: Data, pictures: bool) -> None:
    if pictures:
        return
    for name, usual in (("aspect", 1.0), ("flip", False)):
        if getattr(data, name) != usual:
            raise ValueError(
                f"data.{name} is of pictures, and the objective reads prompts alone; remove it, or write "
                'objective.anchor = "data"'
            )
