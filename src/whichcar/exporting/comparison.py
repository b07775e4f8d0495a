"""Compare an exported network with Keras' on the same images, and refuse the export if the two disagree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from whichcar.errors import CheckpointError, DataError
from whichcar.exporting.images import NOISE, ExportImages, batches, calibration_images, noise
from whichcar.exporting.openvino import OpenVinoNetwork
from whichcar.exporting.quantize import candidates
from whichcar.exporting.verify import Verification, measure
from whichcar.inference.bundle import Bundle
from whichcar.inference.runtimes import OnnxRuntime, Runtime
from whichcar.parallel import usable_cores
from whichcar.records import Metadata
from whichcar.text import plural
from whichcar.training.hardware import processor_name

Forms = dict[str, tuple[Runtime, int]]  # by name, with the size in bytes
LARGEST_DIFFERENCE = 1e-3  # between probabilities in float32; 1e-6 to 1e-4 is usual
LARGEST_LOSS = 0.003  # of accuracy, through int8


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares the forms of a network, including OpenVINO's if requested, with Keras' on the images of an export."""

    keras: Runtime
    checkpoint: Path
    metadata: Metadata
    images: ExportImages
    uses_openvino: bool

    def float32(self, bundle: Bundle) -> tuple[Bundle, Verification]:
        """Return the bundle, and the measurements of its network."""
        return bundle, self._measured(self._forms(bundle))

    def int8(self, bundle: Bundle) -> tuple[Bundle, Verification]:
        """Return the first int8 form of a bundle that is accurate enough, and the measurements of both."""
        float32 = self._forms(bundle)
        images = calibration_images(self.images, self.metadata.image_size)
        for calibration, candidate in candidates(bundle, images, self.checkpoint):
            measured = self._measured(float32 | self._forms(candidate))
            before, *after = (form.top_1 for form in measured.forms if form.top_1)
            worst = min(after, key=lambda accuracy: accuracy.value)
            if before.value - worst.value <= LARGEST_LOSS:
                return candidate, replace(measured, calibration=calibration.name)
        raise CheckpointError(
            f"{self.checkpoint}: int8 loses {100 * (before.value - worst.value):.1f} points of accuracy on "
            f"{plural(before.total, f'{self.images.split} image')} ({before.value:.1%} to {worst.value:.1%}), more "
            f"than {100 * LARGEST_LOSS:g}, and was not written (one image is {100 / before.total:.1f} points); "
            "export it with --precision float32"
        )

    def _forms(self, bundle: Bundle) -> Forms:
        forms: Forms = {f"ONNX {bundle.precision}": (OnnxRuntime(bundle, self.checkpoint), len(bundle.network))}
        if self.uses_openvino:
            network = OpenVinoNetwork(bundle)
            forms[f"OpenVINO {bundle.precision}"] = network, network.size
        return forms

    def _measured(self, forms: Forms) -> Verification:
        images, size = self.images, self.metadata.image_size
        forms = {"Keras float32": (self.keras, self.checkpoint.stat().st_size)} | forms
        pixels = noise(size) if images.split == NOISE else batches(images.verifying, size)
        measured = measure(forms, pixels, len(images.verifying))
        if not measured:
            root = self.metadata.data_root
            raise DataError(f"{root}: none of its images can be read; check it with `whichcar check`")
        for form in measured:
            if form.name.endswith("float32") and not form.difference <= LARGEST_DIFFERENCE:
                raise CheckpointError(
                    f"{self.checkpoint}: the {form.name} network disagrees with Keras', by up to {form.difference:.2g} "
                    f"in a probability ({LARGEST_DIFFERENCE:g} is allowed), and was not written; predict with the "
                    "checkpoint"
                )
        return Verification(images.split, images.trained_on, tuple(measured), processor_name(), usable_cores())
