"""The settings of a run's data: where records come from, which of their columns are read, and which are left out."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from apexgen.config.table import Table, named


class Bounds(Table):
    """What a column's value must be for its record to be read; a record without a value is left out."""

    minimum: float | None = None
    maximum: float | None = None
    equals: bool | int | float | str | None = None

    @model_validator(mode="after")
    def _has_effect(self) -> "Bounds":
        if self.minimum is None and self.maximum is None and self.equals is None:
            raise ValueError("write minimum, maximum or equals")
        return self


class Origin(Table):
    """One source of records, and how its columns are read."""

    source: str = "scenes"  # a folder, file, pattern such as "shards/*.tar", "hub:owner/name@revision", or "scenes"
    subset: str | None = None  # of a hub data set that has several; None: its own default
    split: str = "train"  # of a hub data set
    picture: str | None = None  # the column of the picture, or of its path; None: found by its name
    captions: dict[str, float] = Field(default_factory=dict)  # columns, and how often each is drawn; empty: by name
    filter: dict[str, Bounds] = Field(default_factory=dict)  # which records are read, by column
    limit: int | None = Field(None, ge=1)  # use that many records only

    @field_validator("source")
    @classmethod
    def _named(cls, source: str) -> str:
        return named(source, 'source = "FOLDER", or remove it for the embedded world')

    @field_validator("captions", mode="before")
    @classmethod
    def _with_weights(cls, written: Any) -> Any:
        """A column, or a list of them, drawn equally often."""
        columns = [written] if isinstance(written, str) else written
        return {column: 1.0 for column in columns} if isinstance(columns, list) else columns

    @field_validator("captions")
    @classmethod
    def _positive(cls, captions: dict[str, float]) -> dict[str, float]:
        for column, weight in captions.items():
            if weight <= 0:
                raise ValueError(f"{column} is drawn {weight} times as often; remove it, or write a number above 0")
        return captions

    @model_validator(mode="after")
    def _of_the_hub(self) -> "Origin":
        for name, usual in (("subset", None), ("split", "train")):
            if getattr(self, name) != usual and not self.source.startswith("hub:"):
                raise ValueError(f'{name} is of a data set of the hub; remove it, or write source = "hub:owner/name"')
        return self


class Share(Origin):
    """A source of a mixture."""

    weight: float = Field(1.0, gt=0)  # how often it is drawn from, relative to the others


class Data(Origin):
    """Where prompts come from, and pictures for objectives that need them."""

    mixture: tuple[Share, ...] = ()  # several sources in place of one
    bad_limit: float = Field(0.05, ge=0, le=1)  # the share of bad records above which a run stops
    encode: Literal["start", "step"] = "start"  # before training, or at the step that takes a record
    cache: str | None = None  # a folder where what is encoded is kept and reused; in memory unless given
    cache_dtype: Literal["float32", "bfloat16"] = "float32"  # of what the cache holds
    aspect: float = Field(1.0, ge=1, le=8)  # pictures keep their shape, in sizes of one area up to this ratio of sides
    drop_captions: float = Field(0.0, ge=0, lt=1)  # share replaced by the empty prompt, for guidance
    flip: bool = False  # half of the pictures are mirrored

    @model_validator(mode="after")
    def _one_or_several(self) -> "Data":
        usual = Origin()
        for name in ("source", "subset", "split", "picture", "captions", "filter"):
            if self.mixture and getattr(self, name) != getattr(usual, name):
                raise ValueError(f"{name} has no effect beside mixture; write it into a [[data.mixture]] table")
        return self

    @field_validator("cache")
    @classmethod
    def _named_cache(cls, cache: str | None) -> str | None:
        return None if cache is None else named(cache, 'cache = "FOLDER", or remove it to encode in memory')

    @model_validator(mode="after")
    def _check_encoding(self) -> "Data":
        if self.cache is None and self.cache_dtype != "float32":
            raise ValueError('cache_dtype is of a cache; remove it, or write cache = "FOLDER"')
        if self.encode == "step" and self.cache is not None:
            raise ValueError('encode = "step" keeps nothing; remove cache, or write encode = "start"')
        if self.encode == "step" and self.aspect != 1:
            raise ValueError('encode = "step" has one size; remove aspect, or write encode = "start"')
        return self
