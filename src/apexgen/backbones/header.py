"""What a safetensors file holds, by its header: nothing is unpickled, and no weight is read."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # how torch.save's files begin
LARGEST_HEADER = 100_000_000  # bytes; the format's own limit
PLAIN = ("F64", "F32", "F16", "BF16", "I64")  # I64: of positions, which some encoders have saved


@dataclass(frozen=True)
class Entry:
    """One tensor."""

    kind: str  # as the format spells it: F32, BF16, ...
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """Every tensor of a file, and its metadata."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """ValueError, one line, for a file that is missing, pickled, cut short, or no safetensors file at all."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = file.read(8)
        if begin.startswith(PICKLED):
            raise ValueError(f"{path} is pickled: opening it could run code; ask for a .safetensors file")
        length = struct.unpack("<Q", begin)[0] if len(begin) == 8 else LARGEST_HEADER + 1
        if length > LARGEST_HEADER:
            raise ValueError(f"{path} is no safetensors file")
        text = file.read(length)
    if len(text) < length:
        raise ValueError(f"{path} is cut short: its header has {len(text)} of {length} bytes; fetch it again")
    try:
        table = json.loads(text)
        metadata = table.pop("__metadata__", {})
        entries = {name: Entry(entry["dtype"], tuple(entry["shape"])) for name, entry in table.items()}
        end = 8 + length + max((entry["data_offsets"][1] for entry in table.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no safetensors file: its header can't be read ({error})") from None
    if size < end:
        raise ValueError(f"{path} is cut short: {size} of {end} bytes; fetch it again")
    try:
        with safe_open(path, framework="numpy"):  # torch would ask for memory for all of it
            pass
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from None
    return Header(entries, metadata)


def refuse_quantised(path: Path, header: Header) -> None:
    """ValueError where a tensor is of fewer bits than 16: to cast it would not undo what quantised it.

    Of the others any mixture is welcome, as each is cast when it is loaded.
    """
    for name, entry in header.tensors.items():
        if entry.kind not in PLAIN:
            raise ValueError(f"{path}: {name} is {entry.kind}, quantised; give weights of 16 or 32 bits, as published")
