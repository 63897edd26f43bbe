"""GenEval's prompts with what their pictures must hold, and its folders of pictures, as its own scripts have them."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apexgen.config import explain
from apexgen.data.files import lines_of
from apexgen.evaluate.gallery import Job
from apexgen.files import write_whole
from apexgen.rules import Record

DATA = Path(__file__).with_name("data")
SEED, SAMPLES = 42, 4  # the official first seed, the same for every prompt; pictures a prompt


class _Barred(BaseModel):
    model_config = ConfigDict(populate_by_name=True, extra="forbid")
    name: str = Field(alias="class", min_length=1)
    count: int = Field(ge=1)


class _Asked(_Barred):
    color: str | None = None
    position: tuple[Literal["left of", "right of", "above", "below"], int] | None = None


class _Record(BaseModel):
    """What a line must have; others' files add keys of their own, which are kept."""

    tag: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    include: list[_Asked] = []
    exclude: list[_Barred] = []


def class_names() -> list[str]:
    """The names of COCO's 80 classes in GenEval's words, in COCO's order."""
    return (DATA / "object_names.txt").read_text().splitlines()


def read_records(file: Path | None = None) -> list[Record]:
    """The records of a metadata file, the official 553 unless given. ValueError, one line, naming its first bad one."""
    source = file or DATA / "evaluation_metadata.jsonl"
    if not source.is_file():
        raise ValueError(f"--metadata {source}: no such file; one JSON a line, as GenEval's evaluation_metadata.jsonl")
    lines = lines_of(source.read_text())
    records = [parse_record(text, f"{source}, line {i}") for i, text in enumerate(lines, 1) if text.strip()]
    if not records:
        raise ValueError(f"--metadata {source} is empty")
    return records


def parse_record(text: str, origin: str) -> Record:
    """One record from JSON; ValueError, one line, for what is none."""
    try:
        record = json.loads(text)
        parsed = _Record.model_validate(record)
    except ValidationError as error:
        raise ValueError(f"{origin}: {explain(error, _Record)}") from None
    except ValueError as error:
        raise ValueError(f"{origin} is no JSON: {error}") from None
    for place, asked in enumerate(parsed.include):
        if asked.position is not None and not 0 <= asked.position[1] < place:
            raise ValueError(f"{origin}: position refers to include {asked.position[1]}; write one before {place}")
    return record  # type: ignore[no-any-return]


def lay_out(folder: Path, records: Sequence[Record], samples: int, seed: int) -> list[Job]:
    """Write metadata.jsonl into NNNNN/ for every record, and name the pictures to draw, NNNNN/samples/NNNNN.png.

    Every prompt starts from the same seed, as the official script seeds anew for each. ValueError, before anything is
    written, where a record's place has another's.
    """
    places = [folder / f"{index:05}" / "metadata.jsonl" for index in range(len(records))]
    for place, record in zip(places, records, strict=True):
        if place.is_file() and parse_record(place.read_text(), str(place)) != record:
            raise ValueError(f"{place} is of another record than --metadata has there; give another --out")
    jobs = []
    for index, (place, record) in enumerate(zip(places, records, strict=True)):
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, json.dumps(record).encode())
        paths = (f"{index:05}/samples/{sample:05}.png" for sample in range(samples))
        jobs += [Job(path, record["prompt"], seed + sample) for sample, path in enumerate(paths)]
    return jobs


def read_folder(folder: Path) -> list[tuple[Path, Record]]:
    """The pictures of an official folder with their records: any folder named by digits, any N.png in its samples/.

    ValueError where there are none, or a folder has no metadata.jsonl.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of pictures")
    found: list[tuple[Path, Record]] = []
    places = [place for place in folder.iterdir() if place.is_dir() and place.name.isdecimal()]
    for place in sorted(places, key=lambda place: int(place.name)):
        metadata = place / "metadata.jsonl"
        if not metadata.is_file():
            raise ValueError(f"{metadata} is missing: GenEval's folders have the prompt's record there")
        record = parse_record(metadata.read_text(), str(metadata))
        files = place.joinpath("samples").glob("*.png")
        found += [(file, record) for file in sorted(files) if re.fullmatch(r"\d+", file.stem)]
    if not found:
        raise ValueError(f"{folder} holds no pictures in GenEval's places, such as 00000/samples/00000.png")
    return found
