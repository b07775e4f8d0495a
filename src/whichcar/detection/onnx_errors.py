"""Why an ONNX file cannot be used, in words: from its first bytes, and from what ONNX Runtime says."""

from __future__ import annotations

import re
from pathlib import Path

from whichcar.text import one_line, shell_command

_LONGEST = 300
_KNOWN_STARTS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the model; fetch the model with: {lfs}"),
    (b"PK\x03\x04", "is a PyTorch checkpoint or another zip archive; export the detector to ONNX"),
    (b"\x80\x02", "is a pickled checkpoint; export the detector to ONNX"),
    (b"\x89HDF", "is an HDF5 file; export the detector to ONNX"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it first"),
)
# What stands before the reason: the kind of error, the file, and the place in ONNX Runtime's own source.
_BEFORE = (
    re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"^Load model from .* failed:", re.DOTALL),
    re.compile(r"^/onnxruntime_src/\S+:\d+ "),
    re.compile(r"^\w[\w:<>, *&]*\(.*?\)\)?(?: const)? (?=[A-Z])", re.DOTALL),
)


def unusable(path: Path) -> str | None:
    """Return what is wrong with a file as its first bytes show it; None where it may be an ONNX file."""
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
        return "is empty; fetch it again"
    if start.lstrip().startswith(b"<"):
        return "is a web page, not a model; fetch it again, from the address of the file itself"
    if start[4:8] == b"TFL3":
        return "is a TensorFlow Lite file; export the detector to ONNX"
    lfs = shell_command(["git", "-C", path.absolute().parent, "lfs", "pull", "--include", path.name])
    return next((said.format(lfs=lfs) for begin, said in _KNOWN_STARTS if start.startswith(begin)), None)


def reason_of(error: Exception) -> str:
    """Return why a file could not be loaded or run, the cause first, and what would do where that is known."""
    import onnxruntime

    said, ours = _cause(error), f"the installed onnxruntime {onnxruntime.__version__}"
    newer = "export it with an older onnx, or update: pip install -U onnxruntime"
    if match := re.search(r"IR version: (\d+), max supported IR version: (\d+)", said):
        return f"its IR version {match[1]} is newer than {match[2]}, the newest that {ours} reads; {newer}"
    if match := re.search(r"Opset (\d+) is under development.* till opset (\d+)", said):
        return f"its opset {match[1]} is newer than {match[2]}, the newest that {ours} reads; {newer}"
    if match := re.search(r"External data path does not exist: \"([^\"]*)\"", said):
        return f"its weights are in another file, {match[1]}, which is missing; copy that one there too"
    if "Protobuf parsing failed" in said or "No graph was found" in said:
        return "it is damaged, incomplete or no ONNX file; fetch it again"
    if match := re.search(r"(\S+?)(?:\(\S*\))? is not a registered function/op|No Op registered for (\S+)", said):
        return f"{ours} does not have its operator {match[1] or match[2]}; export the detector without it"
    if "EfficientNMS_TRT" in said:
        return f"{ours} does not have its operator EfficientNMS_TRT of TensorRT; export the detector without it"
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 3]}..."


def _cause(error: Exception) -> str:
    """Return the error's text on one line, without what ONNX Runtime puts before the cause."""
    said = str(error).strip() or type(error).__name__
    for before in _BEFORE:
        said = before.sub("", said)
    return one_line(" ".join(said.split()))
