"""Writes the version folder of a packed model: few files, since each costs Triton requests.

``model.py`` is what Triton runs, ``model.zip`` holds the runner, the contract, one request and the
logged model, and the archive of the packages lies beside them. Guarantees: the same model, contract
and request give the same bytes.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from pipeline import manifest, request_groups, runner
from pipeline.runner import frames
from pipeline.runner.contract import FILE, Contract
from pipeline.runner.packed import EXAMPLE_FILE, MODEL_ARCHIVE, MODEL_FILE, PACKAGE
from pipeline.samples import Array
from pipeline.tar_archives import write_tar

PYTHON_FILE: Final = "model.py"
_ENTRY_POINT: Final = "python_backend/model.py"
_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)
_PIECE: Final = 2**20


def write_packed(
    folder: Path, model: Path, contract: Contract, example: Mapping[str, Array]
) -> None:
    """Write ``model.py`` and ``model.zip``.

    Args:
        folder: The version folder.
        model: Folder of the logged model.
        contract: How it is asked.
        example: A request that a server asks it before it is ready.
    """
    own = Path(runner.__file__).parent
    (folder / PYTHON_FILE).write_bytes((own / _ENTRY_POINT).read_bytes())
    request = b"".join(frames.frame_bytes(frames.Frame(kind="ask", arrays=example)))
    with ZipFile(folder / MODEL_FILE, "w") as archive:
        _add(archive, FILE, contract.to_bytes())
        _add(archive, EXAMPLE_FILE, request)
        for file in _code(own):
            _add(archive, f"{PACKAGE}/{file.name}", file.read_bytes())
        with tempfile.TemporaryFile() as spool:
            write_tar(model, spool, is_compressed=False)
            size = spool.tell()
            spool.seek(0)
            info = _info(MODEL_ARCHIVE)
            info.file_size = size
            with archive.open(info, "w") as target:
                while piece := spool.read(_PIECE):
                    target.write(piece)


def digest_of_file(file: Path) -> str:
    """SHA-256 in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _code(own: Path) -> Iterator[Path]:
    """The runner, and what it has in common with the rest of us."""
    yield from sorted(own.glob("*.py"))
    for module in (manifest.__file__, request_groups.__file__):
        yield Path(module)


def _add(archive: ZipFile, name: str, content: bytes) -> None:
    archive.writestr(_info(name), content)


def _info(name: str) -> ZipInfo:
    info = ZipInfo(name, _LONG_AGO)
    info.compress_type = ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info
