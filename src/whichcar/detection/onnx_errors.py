"""Explain, from its first bytes, why a file cannot be a detector in ONNX."""

from __future__ import annotations

from pathlib import Path

from whichcar.text import shell_command

_KNOWN_STARTS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the model; download the model with: {lfs}"),
    (b"PK\x03\x04", "is a PyTorch checkpoint or another zip archive; export the detector to ONNX"),
    (b"\x80\x02", "is a pickled checkpoint; export the detector to ONNX"),
    (b"\x89HDF", "is an HDF5 file; export the detector to ONNX"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it first"),
)


def unusable(path: Path) -> str | None:
    """Return what a file is, judging by its first bytes, if it cannot be an ONNX file; else None."""
    if path.is_dir():
        return "is a folder; give an .onnx file"
    if not path.is_file():
        return "no such detector file; give an .onnx file"
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        return f"cannot be read ({error.strerror}); change its permissions"
    if not start:
        return "is empty; download it again"
    if start.lstrip().startswith(b"<"):
        return "is a web page, not a model; download it again, from the address of the file itself"
    if start[4:8] == b"TFL3":
        return "is a TensorFlow Lite file; export the detector to ONNX"
    lfs = shell_command(["git", "-C", path.absolute().parent, "lfs", "pull", "--include", path.name])
    return next((reason.format(lfs=lfs) for begin, reason in _KNOWN_STARTS if start.startswith(begin)), None)
