"""The settings of a run's data."""

from pydantic import Field

from apexgen.config.table import Table


class Data(Table):
    """Where prompts come from, and pictures for objectives that need them."""

    source: str = (
        "scenes"  # "scenes", or a text file with one prompt a line, or a folder of pictures with .txt captions
    )
    limit: int | None = Field(None, ge=1)  # use that many records only
