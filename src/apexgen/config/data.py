"""The settings of a run's data."""

from typing import Literal

from pydantic import Field, model_validator

from apexgen.config.table import Table


class Data(Table):
    """Where prompts come from, and pictures for objectives that need them."""

    source: str = (
        "scenes"  # "scenes", or a text file with one prompt a line, or a folder of pictures with .txt captions
    )
    limit: int | None = Field(None, ge=1)  # use that many records only
    encode: Literal["start", "step"] = "start"  # before training, or at the step that takes a record
    cache: str | None = None  # a folder where what is encoded is kept and reused; in memory unless given
    cache_dtype: Literal["float32", "bfloat16"] = "float32"  # of what the cache holds
    aspect: float = Field(1.0, ge=1, le=8)  # pictures keep their shape, in sizes of one area up to this ratio of sides
    drop_captions: float = Field(0.0, ge=0, lt=1)  # share replaced by the empty prompt, for guidance
    flip: bool = False  # half of the pictures are mirrored
    most_bad: float = Field(0.01, ge=0, lt=1)  # share of records that may be bad; they are left out and listed

    @model_validator(mode="after")
    def _check_encoding(self) -> "Data":
        if self.cache is None and self.cache_dtype != "float32":
            raise ValueError('cache_dtype is of a cache; remove it, or write cache = "FOLDER"')
        if self.encode == "step" and self.cache is not None:
            raise ValueError('encode = "step" keeps nothing; remove cache, or write encode = "start"')
        if self.encode == "step" and self.aspect != 1:
            raise ValueError('encode = "step" has one size; remove aspect, or write encode = "start"')
        return self
