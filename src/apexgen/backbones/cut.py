"""Prompts of more tokens than an encoder reads: the stock pipelines cut their ends off, and say so to nobody."""

import warnings
from collections.abc import Sequence
from typing import Any


def warn_of_cut(tokenizer: Any, tokens: Sequence[Sequence[int]], longest: int, by: str = "") -> None:
    """Warn in a line where prompts are of more tokens than are read: how many, and what the first will lose.

    The stock pipelines cut the end off. by: which encoder does, where others read on.
    """
    long = [list(ids) for ids in tokens if len(ids) > longest]
    if not long:
        return
    ends = long[0][-1] == tokenizer.eos_token_id  # a mark that takes the place of the last token read
    lost = tokenizer.decode(long[0][longest - 1 : -1] if ends else long[0][longest:], skip_special_tokens=True).strip()
    warnings.warn(
        f"{len(long)} of {len(tokens)} prompts cut to {longest} tokens{by}; the first, of {len(long[0])}, loses "
        f"{lost[:60]!r}" + ("..." if len(lost) > 60 else ""),
        stacklevel=4,
    )


def warn_of_cut_by_clip(clip: Any, prompts: Sequence[str], tokens: Sequence[Sequence[int]], longest: int) -> None:
    """Warn too of prompts that another encoder reads whole, as `tokens`, and CLIP does not."""
    whole = [prompt for prompt, ids in zip(prompts, tokens, strict=True) if len(ids) <= longest]
    if whole:
        by = " by CLIP alone, which makes the pooled vector"
        warn_of_cut(clip, clip(whole).input_ids, int(clip.model_max_length), by)
