"""apexgen turns a flow-matching text-to-image model into a one-step generator."""

__version__ = "0.1.0"
