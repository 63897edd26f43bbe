"""Where encoded things are kept, by key: a dict in memory, or a folder of safetensors shards that are read by mapping.

A shard appears whole or not at all, and its own header is the index: nothing can disagree with it. It is named after
its keys, so processes write side by side; what a killed one left half-written is removed when the folder is reopened.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from apexgen.encode.keys import BYTES
from apexgen.files import remove_partials, write_whole

Entry = dict[str, Tensor]  # what one key holds

SHARD_ENTRIES, SHARD_BYTES = 1024, 1 << 28  # a shard is written when it has as many: the most that a kill costs
OPEN_SHARDS = 64  # mapped at once


class Store(Protocol):
    """Entries by key."""

    def __contains__(self, key: bytes) -> bool: ...

    def __getitem__(self, key: bytes) -> Entry: ...

    def add(self, key: bytes, entry: Entry) -> None:
        """Keep an entry under its key."""

    def flush(self) -> None:
        """Make sure that all that was added is kept."""


class Memory(dict[bytes, Entry]):
    """A Store in memory."""

    def add(self, key: bytes, entry: Entry) -> None:
        """Keep an entry under its key, as it is."""
        self[key] = entry

    def flush(self) -> None:
        """Nothing: what was added is kept."""


class Folder:
    """A Store on disk, in a dtype; entries come back in float32. Some 20 bytes of memory an entry.

    What is added, by this process or another, is read after `reopen`. Raises ValueError for a shard that can't be read.
    """

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        self.path, self.dtype = path, dtype
        self._pending: dict[bytes, Entry] = {}
        self._written: set[bytes] = set()  # since `reopen`
        self._map = lru_cache(OPEN_SHARDS)(self._open)
        self.reopen()

    def reopen(self) -> None:
        """Look again at what the folder holds. ValueError for a shard that can't be read."""
        remove_partials(self.path)
        self._files = shards_in(self.path)
        self._map.cache_clear()
        self._written.clear()
        keys = [self._keys(file) for file in self._files]
        shards = np.repeat(np.arange(len(keys), dtype=np.int32), [len(each) for each in keys])
        joined = np.concatenate([*keys, np.empty(0, f"S{BYTES}")])
        order = joined.argsort()
        self._known, self._shards = joined[order], shards[order]

    def __contains__(self, key: bytes) -> bool:
        return key in self._pending or key in self._written or self._shard(key) is not None

    def __getitem__(self, key: bytes) -> Entry:
        shard = self._shard(key)
        if shard is None:
            raise KeyError(key.hex())
        opened, fields = self._map(shard)
        entry = {field: opened.get_tensor(f"{key.hex()}.{field}") for field in fields}
        return {field: tensor.float() if tensor.is_floating_point() else tensor for field, tensor in entry.items()}

    def add(self, key: bytes, entry: Entry) -> None:
        """Keep an entry, on disk when a shard is full or at `flush`."""
        self._pending[key] = {
            field: (tensor.to(self.dtype) if tensor.is_floating_point() else tensor).contiguous()
            for field, tensor in entry.items()
        }
        held = sum(tensor.nbytes for tensor in entry.values()) * len(self._pending)
        if len(self._pending) >= SHARD_ENTRIES or held >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as a shard, whole or not at all."""
        if not self._pending:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        entries = self._pending.items()
        tensors = {f"{key.hex()}.{field}": tensor for key, entry in entries for field, tensor in entry.items()}
        name = hashlib.blake2b(b"".join(self._pending), digest_size=BYTES).hexdigest()
        write_whole(self.path / f"{name}.safetensors", save(tensors))
        self._written.update(self._pending)
        self._pending.clear()

    def _shard(self, key: bytes) -> int | None:
        """The place of an entry's shard, where there is one."""
        wanted = key.rstrip(b"\0")  # as numpy gives back what it holds
        found = int(np.searchsorted(self._known, np.bytes_(wanted)))
        return int(self._shards[found]) if found < len(self._known) and self._known[found] == wanted else None

    def _keys(self, file: Path) -> np.ndarray:
        names = {name.partition(".")[0] for name in _open_shard(file).keys()}
        return np.array([bytes.fromhex(name) for name in names], dtype=f"S{BYTES}")

    def _open(self, shard: int) -> tuple[Any, list[str]]:
        """A shard, mapped, and the fields of its entries."""
        opened = _open_shard(self._files[shard])
        return opened, sorted({name.partition(".")[2] for name in opened.keys()})


def shards_in(path: Path) -> list[Path]:
    """The shards of a folder; what begins with a dot is another process's, half written."""
    return [file for file in sorted(path.glob("*.safetensors")) if not file.name.startswith(".")]


def _open_shard(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} can't be read ({error}); remove it, and it is made again") from None
