"""WISE's official result files: FILE_full_results.json with what was said, FILE_scores_results.jsonl with the marks.

What is unanswered has no line of marks, so that the official scripts ask it again, or refuse to sum up without it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apexgen.evaluate.interview import Answer
from apexgen.evaluate.wise import FILES, LEGACY, MARKS, Prompt, Protocol
from apexgen.files import write_whole

UNMARKED = {999, 9.9}  # what the legacy script writes, and wrote, for marks that it could not read


def write_files(
    folder: Path, protocol: Protocol, prompts: Sequence[Prompt], answers: Sequence[Answer], pictures: Path
) -> None:
    """Write both files of each category's group that has prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        own = [(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True) if prompt.file == name]
        if not own:
            continue
        full = [_full(prompt, answer, pictures) for prompt, answer in own]
        marked = [_marked(protocol, prompt, answer.value) for prompt, answer in own if answer.value is not None]
        _write(folder / f"{name}_full_results.json", json.dumps(full, ensure_ascii=False, indent=2))
        _write(folder / f"{name}_scores_results.jsonl", "".join(json.dumps(line) + "\n" for line in marked))


def _full(prompt: Prompt, answer: Answer, pictures: Path) -> dict[str, Any]:
    return {
        "prompt_id": prompt.id,
        "prompt": prompt.text,
        "key": prompt.explanation,
        "image_path": str(pictures / f"{prompt.id}.png"),
        "evaluation": answer.said if answer.value is not None else f"unanswered: {answer.why} {answer.said}".strip(),
    }


def _marked(protocol: Protocol, prompt: Prompt, value: Sequence[str]) -> dict[str, Any]:
    names = MARKS if protocol is LEGACY else ("score",)
    marks = dict(zip(names, map(int, value), strict=True))
    return {"prompt_id": prompt.id, "Subcategory": prompt.subcategory} | marks


def _write(file: Path, content: str) -> None:
    write_whole(file, content.encode(errors="backslashreplace"))  # half a surrogate pair becomes JSON's own escape


def read_marks(folder: Path, protocol: Protocol) -> dict[int, list[int] | None]:
    """The marks of a folder's score files by prompt; None where the script could not read the judge's.

    Raises ValueError for a folder without them, a broken line, or marks of the other protocol.
    """
    marks: dict[int, list[int] | None] = {}
    for name in FILES:
        for file in (folder / f"{name}_scores_results.jsonl", folder / f"{name}_results.jsonl"):
            if file.is_file():
                marks |= _read_marks(file, protocol)
                break
    if not marks:
        raise ValueError(f"{folder} holds no {FILES[0]}_scores_results.jsonl; name a folder of WISE's results")
    return marks


def _read_marks(file: Path, protocol: Protocol) -> Mapping[int, list[int] | None]:
    marks: dict[int, list[int] | None] = {}
    names = MARKS if protocol is LEGACY else ("score",)
    highest = max(int(choice) for choice in protocol.lines[0][1])
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            prompt_id, own = int(record["prompt_id"]), [record[name] for name in names]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{file}, line {number}, has no marks of {protocol.name}") from None
        protocol.category(prompt_id)
        known = all(isinstance(mark, int | float) and 0 <= mark <= highest and mark == int(mark) for mark in own)
        if not known and not any(mark in UNMARKED for mark in own if isinstance(mark, int | float)):
            raise ValueError(f"{file}, line {number}: marks {own} are not whole ones from 0 to {highest}")
        marks[prompt_id] = [int(mark) for mark in own] if known else None
    return marks
