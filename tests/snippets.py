"""The blocks of code in the Markdown pages, and the command lines in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
SHELL = ("", "console", "sh")  # an indented block has no language


@dataclass(frozen=True)
class Block:
    """A block of code and where it stands."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The name in a first line that is a comment: what the page calls this file."""
        named = re.match(r"# (\w+\.(toml|py))(;|$)", self.text.partition("\n")[0])
        return named[1] if named else None

    def commands(self) -> Iterator[list[str]]:
        """The words of each line, lines that go on joined, comments left out."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(re.sub(r"(^|\s)#.*", "", line)):  # a # within a word is a part of it
                yield words


def blocks(page: Path) -> list[Block]:
    tokens = MarkdownIt("commonmark").parse(page.read_text())
    return [
        Block(page, token.map[0] + 1, token.info.strip() if token.type == "fence" else "", token.content)
        for token in tokens
        if token.type in ("fence", "code_block") and not token.content.startswith("options: ")
    ]


EVERY = [block for page in PAGES for block in blocks(page)]


def in_language(*languages: str) -> list[Block]:
    return [block for block in EVERY if block.language in languages]


def without_launcher(words: list[str]) -> list[str]:
    """The words of an apexgen command, without what sets the environment or starts several processes."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words and words[0] in ("torchrun", "accelerate"):
        return words[words.index("-m") + 1 :]
    return words
