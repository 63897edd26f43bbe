"""What a run came to: a table for the terminal, a grid of pictures, and one self-contained page."""

from apexgen.report.grid import picture_grid
from apexgen.report.page import write_report
from apexgen.report.rows import table

__all__ = ["picture_grid", "table", "write_report"]
