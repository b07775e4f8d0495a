"""Why an ONNX file cannot be used, in plain words: from its first bytes, and from ONNX Runtime's errors."""

from __future__ import annotations

import re
from pathlib import Path

from whichcar.text import one_line, shell_command

_LONGEST = 300
_KNOWN_STARTS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the model; download the model with: {lfs}"),
    (b"PK\x03\x04", "is a PyTorch checkpoint or another zip archive; export the detector to ONNX"),
    (b"\x80\x02", "is a pickled checkpoint; export the detector to ONNX"),
    (b"\x89HDF", "is an HDF5 file; export the detector to ONNX"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it first"),
)
# What precedes the reason: the kind of error, the file, and the line in ONNX Runtime's own source.
_BEFORE = (
    re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"^Load model from .* failed:", re.DOTALL),
    re.compile(r"^/onnxruntime_src/\S+:\d+ "),
    re.compile(r"^\w[\w:<>, *&]*\(.*?\)\)?(?: const)? (?=[A-Z])", re.DOTALL),
)


def unusable(path: Path) -> str | None:
    """Return what a file is, by its first bytes, if it cannot be an ONNX file; else None."""
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


def reason_of(error: Exception) -> str:
    """Return why a file could not be loaded or run, cause first, and a remedy where one is known."""
    import onnxruntime

    reason, installed = _cause(error), f"the installed onnxruntime {onnxruntime.__version__}"
    newer = "export it with an older onnx, or update: pip install -U onnxruntime"
    if match := re.search(r"IR version: (\d+), max supported IR version: (\d+)", reason):
        return f"its IR version {match[1]} is newer than {match[2]}, the newest that {installed} reads; {newer}"
    if match := re.search(r"Opset (\d+) is under development.* till opset (\d+)", reason):
        return f"its opset {match[1]} is newer than {match[2]}, the newest that {installed} reads; {newer}"
    if match := re.search(r"External data path does not exist: \"([^\"]*)\"", reason):
        return f"its weights are in another file, {match[1]}, which is missing; copy it there too"
    if "Protobuf parsing failed" in reason or "No graph was found" in reason:
        return "it is damaged, incomplete or not an ONNX file; download it again"
    if match := re.search(r"(\S+?)(?:\(\S*\))? is not a registered function/op|No Op registered for (\S+)", reason):
        return f"{installed} does not have its operator {match[1] or match[2]}; export the detector without it"
    if "EfficientNMS_TRT" in reason:
        return f"{installed} does not have its operator EfficientNMS_TRT of TensorRT; export the detector without it"
    return reason if len(reason) <= _LONGEST else f"{reason[: _LONGEST - 3]}..."


def _cause(error: Exception) -> str:
    """Return the error's text on one line, without ONNX Runtime's prefixes."""
    reason = str(error).strip() or type(error).__name__
    for before in _BEFORE:
        reason = before.sub("", reason)
    return one_line(" ".join(reason.split()))
