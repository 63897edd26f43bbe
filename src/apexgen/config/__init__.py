"""A run's configuration: frozen, validated, a table of settings a file."""

from apexgen.config.data import Bounds, Data, Origin
from apexgen.config.model import PRESETS, Model
from apexgen.config.run import Run, dump_run, load_run, validate
from apexgen.config.table import Table, explain, read_table
from apexgen.config.train import Train

__all__ = [
    "PRESETS", "Bounds", "Data", "Model", "Origin", "Run", "Table", "Train",
    "dump_run", "explain", "load_run", "read_table", "validate",
]  # fmt: skip
