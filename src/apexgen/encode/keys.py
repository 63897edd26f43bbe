"""What an encoded thing is called: by its content, so that whatever changed is encoded again and nothing else."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from apexgen.size import Size

BYTES = 16  # of a key
TEXT_PARTS = ("text_encoder", "tokenizer", "processor")  # how the names of a pipeline's text folders begin
PICTURE_PARTS = ("vae",)


def text_key(caption: str) -> bytes:
    """The key of a caption."""
    return _digest(caption.encode())


def picture_key(content: bytes, size: Size, mirrored: bool) -> bytes:
    """The key of a picture cut to a size; `content` is `picture_content` of its bytes."""
    return _digest(content, f"{size[0]}x{size[1]}{' mirrored' if mirrored else ''}".encode())


def picture_content(stored: bytes) -> bytes:
    """A digest of a picture's bytes."""
    return _digest(stored)


def revision(pipeline: Path, parts: Sequence[str], *told: object) -> str:
    """A digest of a pipeline's folders whose names begin so, every file's name and bytes, and of what else matters."""
    digest = hashlib.sha256(repr(told).encode())
    for folder in sorted(path for path in pipeline.iterdir() if path.is_dir() and path.name.startswith(tuple(parts))):
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
            digest.update(f"{file.relative_to(pipeline).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]


def _digest(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"\0".join(parts), digest_size=BYTES).digest()
