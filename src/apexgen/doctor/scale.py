"""The scale that PEFT's configuration asks for: in a file's metadata, or in adapter_config.json beside it."""

import json
import re
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

from apexgen.backbones.header import Header

METADATA, BESIDE = "lora_adapter_metadata", "adapter_config.json"


@dataclass(frozen=True)
class Told:
    """What was told of the scale; nothing, where there is no configuration."""

    source: str = ""  # METADATA or BESIDE
    alpha: float | None = None
    alphas: dict[str, float] = field(default_factory=dict)  # of modules whose names end so, as regular expressions
    rooted: bool = False  # alpha over the root of the rank

    def scale(self, module: str, rank: int) -> float:
        """That of a module: 1 unless told."""
        own = [alpha for end, alpha in self.alphas.items() if re.match(rf"(.*\.)?({end})$", module)]
        alpha = own[0] if own else self.alpha
        return 1.0 if alpha is None else alpha / (sqrt(rank) if self.rooted else rank)


def read_told(file: Path, header: Header, is_peft: bool) -> Told:
    """What a file's metadata or, of a file that PEFT wrote, the configuration beside it tells.

    ValueError, one line, where it can't be read.
    """
    beside = file.parent / BESIDE
    if METADATA in header.metadata:
        where, text, begin = f"{file}: its {METADATA}", header.metadata[METADATA], "transformer."
        remedy = "take it out of the file"
    elif is_peft and beside.is_file():
        where, text, begin, remedy = str(beside), beside.read_text(), "", "mend it or move it away"
    else:
        return Told()
    try:
        return _parsed(METADATA if begin else BESIDE, json.loads(text), begin)
    except (ValueError, TypeError, AttributeError, RecursionError, re.error):
        raise ValueError(f"{where} can't be read; {remedy}") from None


def _parsed(source: str, told: dict[str, Any], begin: str) -> Told:
    alpha, alphas = told.get(f"{begin}lora_alpha"), told.get(f"{begin}alpha_pattern") or {}
    for end in alphas:
        re.compile(end)
    return Told(
        source,
        None if alpha is None else float(alpha),
        {end: float(own) for end, own in alphas.items()},
        bool(told.get(f"{begin}use_rslora")),
    )
