"""What WISE's judge is told: our words, or the official ones, read from your copy of the repository."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apexgen.evaluate.wise import Prompt


@dataclass(frozen=True)
class Instruction:
    """What the judge is told, with {Prompt} and {Explanation} where a record's own go."""

    user: str
    system: str = ""

    def word(self, prompt: Prompt) -> str:
        """The instruction for a prompt."""
        filled = self.user.replace("{Explanation}", "\0").replace("{Prompt}", prompt.text)
        return filled.replace("\0", prompt.explanation)


def read_instruction(file: Path) -> Instruction:
    """The instruction in a text file, or in the official Python script, which is read and not run.

    ValueError where {Prompt} and {Explanation} are not both in it, each once.
    """
    if not file.is_file():
        raise ValueError(f"--instruction {file}: no such file; name WISE's gpt_eval.py or vllm_eval.py, or a text")
    content = file.read_text(encoding="utf-8")
    told = _from_script(content, file) if file.suffix == ".py" else Instruction(content.strip())
    for word in ("{Prompt}", "{Explanation}"):
        if told.user.count(word) != 1:
            raise ValueError(
                f"--instruction {file}: {word} must be in it once; copy the judge's text into a .txt with it"
            )
    return told


def _from_script(content: str, file: Path) -> Instruction:
    """The texts of the messages, dicts with "role" and "content", that the script's source spells out."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        raise ValueError(f"--instruction {file}: no Python that can be read") from None
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            entry = _entries(node)
            role = entry.get("role")
            if isinstance(role, ast.Constant) and "content" in entry:
                found[role.value] = "".join(_texts(entry["content"]))
    return Instruction(found.get("user", ""), found.get("system", ""))


def _texts(content: ast.expr) -> list[str]:
    """The strings of a message's content: a string, or the "text" of its parts."""
    if isinstance(content, ast.Constant):
        return [str(content.value)]
    if isinstance(content, ast.JoinedStr):
        return [_filled(part) for part in content.values]
    parts = content.elts if isinstance(content, ast.List) else []
    return [text for part in parts if isinstance(part, ast.Dict) for text in _texts(_entries(part).get("text", part))]


def _filled(part: ast.expr) -> str:
    """A piece of an f-string; record["Prompt"] becomes {Prompt}."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    names = [node.value for node in ast.walk(part) if isinstance(node, ast.Constant)]
    return f"{{{names[0]}}}" if names else ""


def _entries(node: ast.Dict) -> dict[Any, ast.expr]:
    return {
        key.value: value for key, value in zip(node.keys, node.values, strict=True) if isinstance(key, ast.Constant)
    }
