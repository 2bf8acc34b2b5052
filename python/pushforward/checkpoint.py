# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: tensors and facts in one safetensors file that is whole or refused.

The file is one that any reader of the format opens. Its metadata hold the facts as JSON, the
version of this layout, that of the noise contract and of the package, and a SHA-256 over all of
these and the bytes of the tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pushforward import random
from pushforward.facts import as_json, difference, named
from pushforward.files import write_atomically
from pushforward.fingerprints import fingerprint, tensor_bytes

__all__ = ["FORMAT_VERSION", "difference", "fingerprint", "read", "write"]

FORMAT_VERSION = 3
"""Version of the layout; a file with another one is refused."""

_FORMAT = "pushforward.checkpoint"
_KEYS = ("format", "format_version", "noise_contract", "pushforward", "facts", "sha256")
_LARGEST_HEADER = 100_000_000  # the format's own limit


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """Write a checkpoint, or leave the one that is there.

    Whenever the process is killed, ``path`` holds the old or the new checkpoint.

    Args:
        path: the file.
        tensors: by name, of any shape and of the types that safetensors has.
        facts: what :func:`read` should know of the run, as JSON can hold it: None, bools, ints,
            finite floats, strings, and lists and dicts (keys: strings) of these.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a fact is nothing that JSON holds, or a tensor has no dense memory.
        OSError: the path cannot be written or the disk is full; the old file is then kept.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from pushforward import checkpoint
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "run.safetensors"
        ...     checkpoint.write(file, {"x": torch.zeros(2, 3)}, {"seed": 1})
        ...     tensors, facts = checkpoint.read(file)
        >>> tensors["x"].shape, facts
        (torch.Size([2, 3]), {'seed': 1})

    """
    path = _path(path)
    held = {name: _dense(name, tensor) for name, tensor in named(tensors, "tensors").items()}
    metadata = {
        "format": _FORMAT,
        "format_version": str(FORMAT_VERSION),
        "noise_contract": str(random.CONTRACT_VERSION),
        "pushforward": version("pushforward"),
        "facts": as_json(facts, "facts"),
    }
    try:
        metadata["sha256"] = _digest(held, metadata)
        content = safetensors.torch.save(_apart(held), metadata)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"tensors: expected types that safetensors has, got {error}") from error
    try:
        write_atomically(path, [content])
    except OSError as error:
        raise _explained(error, path, "written") from error


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, on the CPU, and the facts of a checkpoint.

    Nothing is returned unless the checksum is right, and nothing is allocated for a size that the
    file does not have.

    Args:
        path: the file.

    Raises:
        TypeError: ``path`` is no path.
        OSError: the file cannot be read.
        ValueError: it is no checkpoint of this package, is damaged, or was written by another
            version of the package, with which the run might not go on as it began.

    """
    path = _path(path)
    try:
        with path.open("rb") as file:
            metadata = _header(file, path)
            file.seek(0)
            content = file.read()
    except OSError as error:
        raise _explained(error, path, "read") from error
    try:
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"checkpoint {path}: is damaged ({error})") from error
    if metadata["sha256"] != _digest(tensors, metadata):
        raise ValueError(f"checkpoint {path}: is damaged (its SHA-256 is another)")
    contract = metadata["noise_contract"]
    if contract != str(random.CONTRACT_VERSION):
        raise ValueError(
            f"checkpoint {path}: expected noise contract {random.CONTRACT_VERSION}, got {contract} "
            f"(written by pushforward {metadata['pushforward']})"
        )
    written_by, this = metadata["pushforward"], version("pushforward")
    if written_by != this:
        raise ValueError(
            f"checkpoint {path}: was written by pushforward {written_by}, this is pushforward "
            f"{this}, which might not go on bit for bit"
        )
    try:
        facts = json.loads(metadata["facts"])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"checkpoint {path}: its facts are no JSON ({error})") from error
    return tensors, named(facts, "facts")


def _path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path: expected a path, got {type(path).__name__}")
    return Path(path)


def _dense(name: str, tensor: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensors: expected {name} to be a tensor, got {type(tensor).__name__}")
    if name == "__metadata__":
        raise ValueError("tensors: expected other names, got '__metadata__', which the format has")
    if tensor.layout != torch.strided or tensor.is_meta:
        kind = "a meta tensor" if tensor.is_meta else f"layout {tensor.layout}"
        raise ValueError(f"tensors: expected {name} to have dense memory, got {kind}")
    dense = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return dense.as_subclass(Tensor)


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy what shares memory with another one, which the format refuses."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    return tensors


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    head = [[key, metadata[key]] for key in _KEYS if key != "sha256"]
    digest.update(json.dumps(head).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def _header(file: BinaryIO, path: Path) -> dict[str, str]:
    """Return the metadata, once the sizes in the header are those of the file."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= min(size - 8, _LARGEST_HEADER):
        raise ValueError(f"checkpoint {path}: is cut short, or no safetensors file")
    try:
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__")
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        whole = 8 + length + end == size
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"checkpoint {path}: is damaged, or no checkpoint") from error
    if not isinstance(metadata, dict) or metadata.get("format") != _FORMAT:
        raise ValueError(f"checkpoint {path}: expected a checkpoint of pushforward, got another")
    _check_version(metadata, path)
    if not whole:
        raise ValueError(
            f"checkpoint {path}: expected {8 + length + end} bytes by its header, got {size}"
        )
    if not all(isinstance(metadata.get(key), str) for key in _KEYS):
        raise ValueError(f"checkpoint {path}: is damaged (its metadata are incomplete)")
    return metadata


def _check_version(metadata: Mapping[str, Any], path: Path) -> None:
    found = metadata.get("format_version")
    if not isinstance(found, str) or not found.isdecimal() or int(found[:9]) < 1:
        raise ValueError(f"checkpoint {path}: is damaged (its format version is {found!r})")
    if int(found[:9]) != FORMAT_VERSION:
        age = "an older" if int(found[:9]) < FORMAT_VERSION else "a newer"
        raise ValueError(
            f"checkpoint {path}: is of format version {found}, {age} one, written by pushforward "
            f"{metadata.get('pushforward')}; pushforward {version('pushforward')} reads "
            f"{FORMAT_VERSION}"
        )


def _explained(error: OSError, path: Path, verb: str) -> OSError:
    """The same kind of error, with the path and what was tried in its words."""
    reason = error.strerror or str(error)
    number = error.errno if error.errno is not None else 0
    return OSError(number, f"checkpoint {path}: could not be {verb}: {reason}")
