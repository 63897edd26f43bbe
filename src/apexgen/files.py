"""Files and folders that appear whole or not at all: written under another name beside their own, then renamed."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNTOUCHED = 60  # seconds after which a file is not at hand on another machine, whose processes aren't known here


def write_whole(path: Path, content: bytes) -> None:
    """Give a file its content: a reader, a kill, or another writer finds the old or the new one whole."""
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        partial.write_bytes(content)
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove what killed processes had half written to a folder with `write_whole`."""
    for partial in folder.glob(".partial-[0-9]*-*"):
        with suppress(FileNotFoundError):  # its writer, or another process here, was first
            if not _at_work(partial.name.split("-")[1]) and time.time() - partial.stat().st_mtime > UNTOUCHED:
                partial.unlink()


def _at_work(process: str) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A path to write to, renamed to `target` in the end, in place of what was there; on an error nothing is left."""
    partial = target.with_name(f".partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def alone(folder: Path, rank: int = 0) -> Iterator[None]:
    """Hold a folder, as the only process of a rank; the system lets go of it when the process ends, however it ends.

    Raises ValueError where another process holds it.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / f".lock-{rank}", timeout=0):
            yield
    except Timeout:
        raise ValueError(f"another process is at work in {folder}; wait for its end, or give another folder") from None


def check_folder(folder: Path, key: str) -> None:
    """ValueError, one line, where a folder can't be made or written to; the key is what names it: --out, folder =."""
    near = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if not near.is_dir():
        raise ValueError(f"{key} {folder}: {near} is a file, not a folder; write {key} another")
    if not os.access(near, os.W_OK | os.X_OK):
        raise ValueError(f"{key} {folder}: {near} can't be written to; write {key} another")


def check_file(file: Path, key: str, usual: str) -> None:
    """ValueError, one line, where a file can't be written, or is a folder, for which the usual name is told."""
    if file.is_dir():
        raise ValueError(f"{key} {file} is a folder; write {key} {file / usual}")
    check_folder(file.parent, key)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of them, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
