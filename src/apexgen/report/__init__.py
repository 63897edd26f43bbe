"""What a run came to: a table for the terminal, a grid of pictures, and one self-contained page."""

from apexgen.report.grid import picture_grid
from apexgen.report.page import write_page, write_report
from apexgen.report.record import Record, environment
from apexgen.report.rows import table

__all__ = ["Record", "environment", "picture_grid", "table", "write_page", "write_report"]
