"""Compare an exported network with Keras' on the same images, and refuse the export if the two disagree."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from whichcar.errors import CheckpointError, DataError
from whichcar.exporting.images import NOISE, ExportImages, batches, calibration_images, noise
from whichcar.exporting.litert import LiteRtNetwork
from whichcar.exporting.openvino import OpenVinoNetwork
from whichcar.exporting.quantize import candidates
from whichcar.exporting.verify import Verification, measure
from whichcar.images.pixels import Pixels
from whichcar.inference.bundle import Bundle, Precision
from whichcar.inference.runtimes import KerasRuntime, OnnxRuntime, Runtime
from whichcar.metrics import Proportion
from whichcar.parallel import usable_cores
from whichcar.records import Metadata
from whichcar.text import one_line, plural
from whichcar.training.hardware import processor_name

Format = Literal["onnx", "openvino", "litert"]
Forms = dict[str, tuple[Runtime, int]]  # by name, with the size in bytes
TITLES: dict[Format, str] = {"openvino": "OpenVINO", "litert": "LiteRT"}
LITERT_INT8, OPENVINO_INT8 = f"{TITLES['litert']} int8", f"{TITLES['openvino']} int8"
LARGEST_DIFFERENCE = 1e-3  # between probabilities in float32; 1e-6 to 1e-4 is usual
LARGEST_LOSS = 0.003  # of accuracy, through int8


class Network(Runtime, Protocol):
    """A network in the format of another runtime; `size` is in bytes."""

    size: int
    precision: Precision

    def write(self, bundle: Bundle, path: Path) -> tuple[Path, ...]:
        """Write the network and its description, and return the files."""


def _loses_too_much(before: Proportion, after: Proportion) -> bool:
    """Return whether int8 loses more accuracy than is allowed."""
    return before.correct - after.correct > LARGEST_LOSS * before.total  # a difference of proportions is not exact


@dataclass(frozen=True, slots=True)
class Compared:
    """A bundle, the measurements of its network, and the same network in other formats."""

    bundle: Bundle
    verification: Verification
    others: Mapping[Format, Network]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares the forms of a network, including those in other `formats`, with Keras' on the images of an export.

    `size` is that of the checkpoint, in bytes.
    """

    keras: KerasRuntime
    checkpoint: Path
    size: int
    metadata: Metadata
    images: ExportImages
    formats: Collection[Format]

    def float32(self, bundle: Bundle) -> Compared:
        """Compare the bundle's network."""
        others = self._openvino(bundle) | self._litert(bundle, None)
        return Compared(bundle, self._measured(self._forms(bundle, others)), others)

    def int8(self, bundle: Bundle) -> Compared:
        """Compare the first int8 form of a bundle that is accurate enough, and the float32 form."""
        float32 = self._forms(bundle, self._openvino(bundle) | self._litert(bundle, None))
        images = calibration_images(self.images, self.metadata.image_size)
        litert = self._litert(bundle, images)  # the same for every candidate
        for calibration, candidate in candidates(bundle, images, self.checkpoint):
            others = self._openvino(candidate) | litert
            measured = self._measured(float32 | self._forms(candidate, others))
            accuracy = {form.name: form.top_1 for form in measured.forms if form.top_1}
            before = next(iter(accuracy.values()))
            if _loses_too_much(before, accuracy.get(LITERT_INT8, before)):
                name, advice = LITERT_INT8, "leave out --format litert"
                break
            name, advice = min(accuracy, key=lambda form: accuracy[form].value), "export it with --precision float32"
            if name == OPENVINO_INT8 and not _loses_too_much(before, accuracy["ONNX int8"]):
                advice = f"leave out --format openvino, or {advice}"
            if not _loses_too_much(before, accuracy[name]):
                return Compared(candidate, replace(measured, calibration=calibration.name), others)
        worst = accuracy[name]
        raise CheckpointError(
            f"{self.checkpoint}: {name} loses {100 * (before.value - worst.value):.2f} points of accuracy on "
            f"{plural(before.total, f'{self.images.split} image')} ({before.value:.2%} to {worst.value:.2%}), more "
            f"than {100 * LARGEST_LOSS:g}, and was not written (one image is {100 / before.total:.2f} points); {advice}"
        )

    def _openvino(self, bundle: Bundle) -> dict[Format, Network]:
        return {"openvino": OpenVinoNetwork(bundle)} if "openvino" in self.formats else {}

    def _litert(self, bundle: Bundle, calibrating: Pixels | None) -> dict[Format, Network]:
        """Return Keras' network; `calibrating` are the images for int8, None for float32."""
        if "litert" not in self.formats:
            return {}
        return {"litert": LiteRtNetwork(self.keras.model, bundle.image_size, calibrating, one_line(self.checkpoint))}

    def _forms(self, bundle: Bundle, others: Mapping[Format, Network]) -> Forms:
        forms: Forms = {f"ONNX {bundle.precision}": (OnnxRuntime(bundle, self.checkpoint), len(bundle.network))}
        return forms | {f"{TITLES[one]} {other.precision}": (other, other.size) for one, other in others.items()}

    def _measured(self, forms: Forms) -> Verification:
        images, size = self.images, self.metadata.image_size
        forms = {"Keras float32": (self.keras, self.size)} | forms
        pixels = noise(size) if images.split == NOISE else batches(images.verifying, size)
        measured = measure(forms, pixels, len(images.verifying))
        if not measured:
            root = self.metadata.data_root
            raise DataError(f"{root}: none of its images can be read; check it with `whichcar check`")
        for form in measured:
            if form.name.endswith("float32") and not form.difference <= LARGEST_DIFFERENCE:
                advice = {f"{title} float32": f"leave out --format {one}" for one, title in TITLES.items()}
                raise CheckpointError(
                    f"{self.checkpoint}: the {form.name} network disagrees with Keras', by up to {form.difference:.2g} "
                    f"in a probability ({LARGEST_DIFFERENCE:g} is allowed), and was not written; "
                    f"{advice.get(form.name, 'predict with the checkpoint')}"
                )
        return Verification(images.split, images.trained_on, tuple(measured), processor_name(), usable_cores())
