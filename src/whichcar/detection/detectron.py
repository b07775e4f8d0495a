"""The reference project's detector: Detectron2's Faster R-CNN R101-FPN (Ren et al. 2015, Lin et al. 2017).

Detectron2 has no wheels on PyPI; it is built from source, with torch already installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from whichcar.detection.coco import NAMES
from whichcar.errors import DetectorError, ImageError
from whichcar.images.pixels import Pixels
from whichcar.records import Box, Detection

CONFIG = "COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml"  # box AP 42.0
INSTALL = "pip install torch, then: pip install 'git+https://github.com/facebookresearch/detectron2.git'"
_LOWEST_SCORE = 0.05


class DetectronDetector:
    """Faster R-CNN R101-FPN as a `detection.Detector`.

    Raises:
        DetectorError: detectron2 is not installed.
    """

    name = "detectron2"

    def __init__(self) -> None:
        """Build the network and load its weights, which detectron2 downloads on first use."""
        try:
            from detectron2 import model_zoo
            from detectron2.config import get_cfg
            from detectron2.engine import DefaultPredictor
        except ImportError as error:
            raise DetectorError(f"detectron2 is not installed ({error}); install it with: {INSTALL}") from error
        config = get_cfg()
        config.merge_from_file(model_zoo.get_config_file(CONFIG))
        config.MODEL.WEIGHTS = model_zoo.get_checkpoint_url(CONFIG)
        config.MODEL.ROI_HEADS.SCORE_THRESH_TEST = _LOWEST_SCORE
        config.MODEL.DEVICE = _device()
        self._predictor: Any = DefaultPredictor(config)

    def detect(self, images: Sequence[Pixels], score: float = 0.5) -> list[list[Detection]]:
        """Return the detections of each image above `score`, most confident first; see `detection.Detector`."""
        return [self._one(image, score) for image in images]

    def _one(self, image: Pixels, score: float) -> list[Detection]:
        # DefaultPredictor expects BGR, as OpenCV reads it.
        instances = self._predictor(np.ascontiguousarray(image[:, :, ::-1]))["instances"].to("cpu")
        sides = np.array([image.shape[1], image.shape[0]] * 2)
        corners = np.asarray(instances.pred_boxes.tensor)
        if not np.isfinite(corners).all():
            raise ImageError("detectron2 returns an invalid box for it")
        boxes = np.clip(np.rint(corners), 0, sides).astype(int)
        scores, classes = np.asarray(instances.scores), np.asarray(instances.pred_classes)
        return [
            Detection(NAMES[classes[row]], float(scores[row]), Box(*(int(side) for side in boxes[row])))
            for row in np.argsort(-scores, kind="stable")
            if scores[row] > score and (boxes[row, 2:] > boxes[row, :2]).all()
        ]


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
