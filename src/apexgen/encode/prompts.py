"""Prompts that a user gives a command."""

from collections.abc import Sequence
from pathlib import Path

from apexgen.data.columns import text_fault
from apexgen.data.files import lines_of


def check_prompts(prompts: Sequence[str], origin: str) -> list[str]:
    """The prompts without surrounding blanks; ValueError when there are none, or one is empty or no UTF-8."""
    cleaned = [prompt.strip() for prompt in prompts]
    if not cleaned or not all(cleaned):
        raise ValueError(f"{origin}: a prompt is empty; write at least a word")
    fault = text_fault(cleaned)  # of an argument in another encoding
    if fault is not None:
        raise ValueError(f"{origin}: {fault}")
    return cleaned


def prompts_in(file: Path, origin: str) -> list[str]:
    """The prompts of a file, one a line; blank ones are passed over. ValueError where it is missing or has none."""
    if not file.is_file():
        raise ValueError(f"{origin}: no such file; write one prompt a line into it")
    try:
        lines = lines_of(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError(f"{origin}: it is no text of UTF-8; save it as such") from None
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"{origin}: it has no prompt; write one a line")
    return check_prompts(prompts, origin)


def probe_prompts(path: str, file: Path | None) -> list[str]:
    """Prompts to try a model with: a file's, one a line; the embedded model may have its own world's.

    ValueError where the file is missing or empty, or needed and not given.
    """
    if file is not None:
        return prompts_in(file, f"--prompts {file}")
    if path != "scenes":
        raise ValueError("--prompts is missing: name a file with one prompt a line")
    from apexgen.scenes.prompts import draw_captions

    return [caption.text for caption in draw_captions(2, held_out=False, seed=1)]


def given_prompts(prompts: Sequence[str], file: Path | None) -> list[str]:
    """The prompts of --prompt, then those of the file of --prompts; ValueError for none, or an empty one."""
    named = check_prompts(prompts, "--prompt") if prompts or file is None else []
    return named if file is None else named + prompts_in(file, f"--prompts {file}")
