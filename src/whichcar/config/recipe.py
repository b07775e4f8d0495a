"""The settings of the training recipe (section `recipe`), which this project adds to the reference project's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from whichcar.config.section import Section, Size, not_null

FromEpoch = Annotated[int, Field(ge=1)]
Factor = Annotated[float, Field(gt=0)]
MOMENT_IMAGES = 512  # for `precise_batch_norm`; ours: with 512, 1,024 and 2,048, accuracy 0.810, 0.803 and 0.801


class RandomResizedCrop(Section):
    """Crop a random box and resize it to the training size (Szegedy et al. 2015, as in torchvision)."""

    side: tuple[float, float] = Field((0.8, 1.0), description="smallest and largest fraction of each side that is kept")

    @model_validator(mode="after")
    def _ordered(self) -> RandomResizedCrop:
        low, high = self.side
        if not 0 < low <= high <= 1:
            raise ValueError(f"side must be two shares with 0 < low <= high <= 1; got {list(self.side)}")
        return self


class RandAugment(Section):
    """Random colour and geometric operations (Cubuk et al. 2020)."""

    num_ops: int = Field(2, ge=1, le=10, description="operations per image")
    factor: float = Field(0.3, ge=0, le=1, description="magnitude of the operations")


class Stage(Section):
    """Some epochs at one image size."""

    epochs: int = Field(ge=1, description="number of epochs at this size")
    image_size: Size = Field(description="height and width of training images")


class Recipe(Section):
    """Training recipe: schedule, augmentation, regularisation, EMA. Everything is off unless set."""

    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="learning-rate schedule over the training steps"
    )
    warmup_steps: int = Field(0, ge=0, description="linear warm-up steps (optimizer updates)")
    warmup_share: float = Field(0.0, ge=0, lt=1, description="linear warm-up as a fraction of all optimizer updates")
    rate_factors: tuple[tuple[FromEpoch, Factor], ...] = Field(
        (), description="pairs [epoch, factor]: from this epoch on, the learning rate is multiplied by the factor"
    )
    head_rate: float = Field(1.0, gt=0, description="learning rate of the head, relative to the backbone's")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing")
    random_resized_crop: RandomResizedCrop | None = Field(
        None, description="crop a random box and resize it to the training size"
    )
    mixup: float = Field(0.0, ge=0, description="alpha of mixup (Zhang et al. 2018); 0: off")
    cutmix: float = Field(0.0, ge=0, description="alpha of CutMix (Yun et al. 2019); 0: off")
    mix_share: float = Field(1.0, ge=0, le=1, description="probability that mixup or CutMix is applied to a batch")
    rand_augment: RandAugment | None = Field(None, description="RandAugment: random colour and geometric operations")
    plain_epochs: int = Field(0, ge=0, description="number of final epochs without mixup, CutMix and RandAugment")
    ema: float = Field(0.0, ge=0, lt=1, description="EMA decay of the weights; 0: off")
    batch_norm_momentum: float | None = Field(
        None, ge=0, lt=1, description="momentum of batch normalization (default: the network's own; resnet50: 0.99)"
    )
    precise_batch_norm: bool = Field(
        False,
        description="at the end, recompute the moments of batch normalization on training images that are not "
        "augmented, at the size of prediction (Wu and Johnson 2021)",
    )
    stages: tuple[Stage, ...] = Field(
        (), description="phases of progressive resizing; their epochs are scaled to fit.epochs"
    )
    gradient_accumulation: int = Field(1, ge=1, description="batches per optimizer update")
    freeze: int = Field(0, ge=0, description="frozen stages of the backbone, the stem first (resnet50 has 5)")
    cached_features: bool = Field(
        False, description="compute backbone features once for all epochs; needs all stages frozen"
    )
    co_tuning: float = Field(
        0.0,
        ge=0,
        description="weight of co-tuning (You et al. 2020), such as 1; needs weights with the top layer; 0: off",
    )
    test_sizes: tuple[Size, ...] = Field(
        (),
        description="image sizes for prediction, tried on validation; the best is used (without validation images: "
        "exactly one size)",
    )

    _filled = field_validator("random_resized_crop", "rand_augment", mode="before")(not_null)
