"""A network as OpenVINO files: the graph in `.xml` and the weights in `.bin`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from whichcar import files
from whichcar.images.pixels import Pixels
from whichcar.inference.bundle import KEY, Bundle
from whichcar.inference.runtimes import Probabilities
from whichcar.training.run.signals import interrupts_kept

if TYPE_CHECKING:
    import openvino


# OpenVINO then uses its own stub: it sends no usage data, and forks no process to do so.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


class OpenVinoNetwork:
    """A bundle's network converted to OpenVINO and compiled for the local CPU (a `Runtime`); `size` is in bytes."""

    batch_size, callers = 16, 0
    hardware: Mapping[str, str] = {}

    @interrupts_kept()
    def __init__(self, bundle: Bundle) -> None:
        """Convert and compile the network."""
        import openvino

        with files.temporary_folder(3 * len(bundle.network)) as folder:
            path = folder / "network.onnx"
            path.write_bytes(bundle.network)
            self._model: openvino.Model = openvino.convert_model(path)
            openvino.save_model(self._model, path.with_suffix(".xml"), compress_to_fp16=False)
            self.size = sum(path.with_suffix(suffix).stat().st_size for suffix in (".xml", ".bin"))
        # Otherwise it computes in bfloat16 if the processor can.
        compiled = _core().compile_model(self._model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self._infer = compiled.create_infer_request().infer
        self.precision = bundle.precision

    def __call__(self, images: Pixels) -> Probabilities:
        """Return (n, classes) float32 probabilities for (n, height, width, 3) uint8 RGB."""
        scores: Probabilities = self._infer([images])[0].copy()
        return scores

    def write(self, bundle: Bundle, path: Path) -> tuple[Path, ...]:
        """Write `path`, which ends in `.xml`, and the `.bin` next to it, each atomically, and return both.

        The `.xml` holds the content of the bundle's `bundle.json` as runtime information under `whichcar`.

        Raises:
            OSError: a file cannot be written.
        """
        import openvino

        self._model.set_rt_info(json.dumps(bundle.as_json()), [KEY])
        weights = path.with_suffix(".bin")
        with (
            files.temporary_folder(2 * self.size) as folder,
            files.atomic_write(weights) as weights_tmp,
            files.atomic_write(path) as tmp,
        ):
            openvino.save_model(self._model, folder / "network.xml", compress_to_fp16=False)
            tmp.write_bytes((folder / "network.xml").read_bytes())
            weights_tmp.write_bytes((folder / "network.bin").read_bytes())
        return path, weights


@cache
def _core() -> openvino.Core:
    """Return the only core of this process; it is never released.

    Its CPU device sets the alternate signal stack of the thread that creates it. If another thread released it, as in a
    garbage collection, that stack would be unmapped, and the next Ctrl-C would be a segmentation fault.
    """
    import openvino

    return openvino.Core()
