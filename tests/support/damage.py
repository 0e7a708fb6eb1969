"""Kinds of damage to a file."""

from pathlib import Path


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "foreign": lambda path: path.write_bytes(b"\x00\xff not ours " * 40),
    "flipped": lambda path: path.write_bytes(_flipped(path.read_bytes())),
    "missing": Path.unlink,
}
