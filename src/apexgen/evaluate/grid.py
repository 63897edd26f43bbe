"""A table of text, for a terminal or as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Grid:
    """A heading, a row of names, rows of cells, the first of each a name; and what to know of it."""

    title: str
    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def drawn(self) -> Table:
        """For a terminal; brackets of names and judges are no markup."""
        table = Table(box=box.SIMPLE_HEAD, title=Text(self.title, "table.title"), title_justify="left")
        table.add_column(Text(self.names[0]), no_wrap=True)
        for name in self.names[1:]:
            table.add_column(Text(name), justify="right")
        for row in self.rows:
            table.add_row(*map(Text, row))
        table.caption, table.caption_justify = Text("\n".join(self.notes), "table.caption"), "left"
        return table

    def markdown(self) -> str:
        """For a page: a pipe in a name is none of the table's."""
        lines = [self.names, ["---", *("---:" for _ in self.names[1:])], *self.rows]
        drawn = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        return "\n\n".join(part for part in (self.title, drawn, *self.notes) if part)
