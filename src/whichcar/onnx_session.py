"""ONNX Runtime sessions for detectors and classifiers, with errors in plain words."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from whichcar.text import one_line

if TYPE_CHECKING:
    import onnxruntime

log = logging.getLogger(__name__)

_LONGEST = 300
# Prefixes of an error message: the kind of error, the file, and the place in ONNX Runtime's own source.
_BEFORE = (
    re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"^Load model from .* failed:", re.DOTALL),
    re.compile(r"^/onnxruntime_src/\S+:\d+ "),
    re.compile(r"^\w[\w:<>, *&]*\(.*?\)\)?(?: const)? (?=[A-Z])", re.DOTALL),
)


def open_session(model: bytes | Path, threads: int, name: str | Path) -> onnxruntime.InferenceSession:
    """Load a network on a GPU if ONNX Runtime has one, else on the CPU; several threads may use the session at once.

    Args:
        model: the content of an ONNX file, or its path.
        threads: CPU cores per call; with several concurrent callers, 1 is fastest.
        name: used in a warning.

    Raises:
        ValueError: it cannot be loaded; the message says why.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads would take CPU time from the threads that decode images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    usable = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [one for one in usable if one in onnxruntime.get_available_providers()]
    try:
        source = model if isinstance(model, bytes) else str(model)
        session = onnxruntime.InferenceSession(source, options, providers=providers)
    except Exception as error:  # ONNX Runtime raises errors of many types
        raise ValueError(reason_of(error)) from error
    if session.get_providers()[0] != providers[0]:  # ONNX Runtime falls back silently
        log.warning("%s: runs on the CPU, since onnxruntime could not use CUDA; check its drivers", name)
    return session


def reason_of(error: Exception) -> str:
    """Return why a file could not be loaded or run, cause first, with a remedy if one is known."""
    import onnxruntime

    reason, installed = _cause(error), f"the installed onnxruntime {onnxruntime.__version__}"
    newer = "export it with an older onnx, or update: pip install -U onnxruntime"
    if match := re.search(r"IR version: (\d+), max supported IR version: (\d+)", reason):
        return f"its IR version {match[1]} is newer than {match[2]}, the newest that {installed} reads; {newer}"
    if match := re.search(r"Opset (\d+) is under development.* till opset (\d+)", reason):
        return f"its opset {match[1]} is newer than {match[2]}, the newest that {installed} reads; {newer}"
    if match := re.search(r"External data path does not exist: \"([^\"]*)\"", reason):
        return f"its weights are in another file, {match[1]}, which is missing; copy it there too"
    if re.search("[Pp]rotobuf parsing failed|No graph was found", reason):
        return "it is damaged, incomplete or not an ONNX file; download it again"
    if match := re.search(r"(\S+?)(?:\(\S*\))? is not a registered function/op|No Op registered for (\S+)", reason):
        return f"{installed} does not have its operator {match[1] or match[2]}; export it without that one"
    if "EfficientNMS_TRT" in reason:
        return f"{installed} does not have its operator EfficientNMS_TRT of TensorRT; export it without that one"
    return reason if len(reason) <= _LONGEST else f"{reason[: _LONGEST - 3]}..."


def _cause(error: Exception) -> str:
    """Return the error's text on one line, without ONNX Runtime's prefixes."""
    reason = str(error).strip() or type(error).__name__
    for before in _BEFORE:
        reason = before.sub("", reason)
    return one_line(" ".join(reason.split()))
