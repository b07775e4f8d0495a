"""The networks of `keras.applications` that `model.backbone` may name, and which names are KerasHub presets."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from whichcar.config.section import shown
from whichcar.environment import expanded
from whichcar.install import install_command

DEFAULT = "resnet50"
Scaling = Literal["caffe", "tf", "torch", "efficientnet", "inside"]


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network of `keras.applications`.

    `keras_name` is its function there. `scaling` is the preprocessing that its published weights expect; `inside` where
    its own layers do it. `stages` holds, for each stage in order, what the names of its layers begin with, as a
    regular expression. `smallest` is how many pixels a side an image must have. `accuracy` is the published
    top-1 on ImageNet in per cent, from keras.io/api/applications; None where we have not read one.
    """

    keras_name: str
    scaling: Scaling
    stages: tuple[str, ...]
    smallest: int = 32
    accuracy: float | None = None

    @property
    def fits_h5(self) -> bool:
        """True if Keras can load it from `.h5` again; that format supports neither LayerScale nor plain additions."""
        return not self.keras_name.startswith(("ConvNeXt", "MobileNetV3"))

    @property
    def has_batch_norm(self) -> bool:
        """True if it has batch normalization layers."""
        return not self.keras_name.startswith(("ConvNeXt", "VGG"))

    @property
    def has_classifier(self) -> bool:
        """True if a single dense layer leads from its features to ImageNet's classes."""
        return not self.keras_name.startswith(("MobileNetV3", "VGG"))


_RESNET = ("conv1_", "conv2_", "conv3_", "conv4_", "conv5_")
_RESNET_V2 = (*_RESNET[:4], "conv5_|post_")
_DENSENET = ("conv1_", "(conv|pool)2_", "(conv|pool)3_", "(conv|pool)4_", "conv5_|bn")
_EFFICIENTNET = ("stem_", "block1", "block2", "block3", "block4", "block5", "block6", "block7|top_")
_EFFICIENTNET_V2 = (*_EFFICIENTNET[:6], "block6|top_")  # B0 to B3 and S; M and L have a seventh block
_VGG = ("block1_", "block2_", "block3_", "block4_", "block5_")
# Stages end where the feature map is halved.
_CONVNEXT = (
    r"convnext_\w+_(prestem|stem|stage_0_)",
    *(rf"convnext_\w+_(downsampling_block_{stage - 1}|stage_{stage}_)" for stage in (1, 2, 3)),
)
_MOBILENET_V2 = (
    "Conv1|bn_Conv1|expanded_conv_",
    "block_[12]_",
    "block_[3-5]_",
    "block_([6-9]|1[0-2])_",
    "block_1[3-6]_|Conv_1",
)
_MOBILENET_V3_SMALL = (
    "conv(_bn)?$",
    "expanded_conv_[a-z]",
    "expanded_conv_[12]_",
    "expanded_conv_[3-7]_",
    "expanded_conv_([89]|10)_|conv_1",
)
_MOBILENET_V3_LARGE = (
    "conv(_bn)?$|expanded_conv_[a-z]",
    "expanded_conv_[12]_",
    "expanded_conv_[3-5]_",
    "expanded_conv_([6-9]|1[01])_",
    "expanded_conv_1[2-4]_|conv_1",
)

KERAS: dict[str, Backbone] = {
    DEFAULT: Backbone("ResNet50", "caffe", _RESNET, smallest=16, accuracy=74.9),
    "resnet101": Backbone("ResNet101", "caffe", _RESNET, accuracy=76.4),
    "resnet152": Backbone("ResNet152", "caffe", _RESNET, accuracy=76.6),
    "resnet50_v2": Backbone("ResNet50V2", "tf", _RESNET_V2, accuracy=76.0),
    "resnet101_v2": Backbone("ResNet101V2", "tf", _RESNET_V2, accuracy=77.2),
    "resnet152_v2": Backbone("ResNet152V2", "tf", _RESNET_V2, accuracy=78.0),
    **{
        f"efficientnet_v2_b{n}": Backbone(f"EfficientNetV2B{n}", "inside", _EFFICIENTNET_V2, accuracy=accuracy)
        for n, accuracy in enumerate((78.7, 79.8, 80.5, 82.0))
    },
    "efficientnet_v2_s": Backbone("EfficientNetV2S", "inside", _EFFICIENTNET_V2, accuracy=83.9),
    "efficientnet_v2_m": Backbone("EfficientNetV2M", "inside", _EFFICIENTNET, accuracy=85.3),
    "efficientnet_v2_l": Backbone("EfficientNetV2L", "inside", _EFFICIENTNET, accuracy=85.7),
    **{f"efficientnet_b{n}": Backbone(f"EfficientNetB{n}", "efficientnet", _EFFICIENTNET) for n in range(8)},
    "convnext_tiny": Backbone("ConvNeXtTiny", "inside", _CONVNEXT),
    "convnext_small": Backbone("ConvNeXtSmall", "inside", _CONVNEXT),
    "convnext_base": Backbone("ConvNeXtBase", "inside", _CONVNEXT),
    "convnext_large": Backbone("ConvNeXtLarge", "inside", _CONVNEXT),
    "convnext_xlarge": Backbone("ConvNeXtXLarge", "inside", _CONVNEXT),
    "mobilenet_v2": Backbone("MobileNetV2", "tf", _MOBILENET_V2, accuracy=71.3),
    "mobilenet_v3_small": Backbone("MobileNetV3Small", "inside", _MOBILENET_V3_SMALL),
    "mobilenet_v3_large": Backbone("MobileNetV3Large", "inside", _MOBILENET_V3_LARGE),
    "densenet121": Backbone("DenseNet121", "torch", _DENSENET, accuracy=75.0),
    "densenet169": Backbone("DenseNet169", "torch", _DENSENET, accuracy=76.2),
    "densenet201": Backbone("DenseNet201", "torch", _DENSENET, accuracy=77.3),
    "vgg16": Backbone("VGG16", "caffe", _VGG, accuracy=71.3),
    "vgg19": Backbone("VGG19", "caffe", _VGG, accuracy=71.3),
}
_BARE = {re.sub(r"[_-]", "", name): name for name in KERAS}


def backbone_name(name: str) -> str:
    """Return a backbone's canonical name; `EfficientNetV2B0` and `efficientnet-v2-b0` are accepted too.

    A KerasHub preset is returned unchanged: its name if KerasHub is installed, an address such as
    `hf://timm/resnet50.a1_in1k`, or a folder that a preset was saved to.

    Raises:
        ValueError: there is no such network; the message suggests the nearest name.
    """
    known = _BARE.get(re.sub(r"[_-]", "", name).lower())
    if known:
        return known
    if "/" in name or expanded(name).is_dir():
        return name
    close = get_close_matches(name.lower(), KERAS, n=1, cutoff=0.8)
    if not close and importlib.util.find_spec("keras_hub"):
        return name  # when training starts, KerasHub reports whether it is one of its presets
    hint = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(KERAS)}"
    if not close:
        hint += f"; for presets of KerasHub: {install_command('hub')}"
    raise ValueError(f"no network has the name {shown(name)}; {hint}")
