"""All settings, each defined once: name, type, limits, default, description. Help, tables and checks derive from it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from whichcar.config import backbones
from whichcar.config.augmentations import checked
from whichcar.config.recipe import Recipe
from whichcar.config.section import Section, Side, Size, as_number, not_null, shown
from whichcar.text import suggestion

Monitor = Literal["loss", "accuracy", "val_loss", "val_accuracy"]
Best = Literal["loss", "accuracy", "val_loss", "val_accuracy", "epoch"]
Mode = Literal["auto", "min", "max"]
FILEPATH = "model.{epoch:02d}-{val_loss:.4f}.keras"
Augmentations = Annotated[dict[str, dict[str, Any]], BeforeValidator(checked)]


class Data(Section):
    """Where the images are and how they are batched."""

    directory: str = Field(
        min_length=1,
        description="folder with train/ and test/, or with one folder per class; relative to where the command runs",
    )
    labels: Literal["inferred"] = Field("inferred", description="class names are the names of the folders")
    label_mode: Literal["categorical"] = Field("categorical", description="labels are one-hot vectors")
    validation_split: float = Field(
        0.2, ge=0, lt=1, description="fraction of train held out for validation, stratified by class; 0: none"
    )
    train_on_validation: bool = Field(
        False, description="train on the validation images too, once validation has chosen everything (as --refit does)"
    )
    image_size: Size = Field((224, 224), description="height and width of the network's input")
    batch_size: int = Field(32, ge=1, description="images per training step; an incomplete last batch is dropped")
    cache_size: Size | None = Field(
        None, description="height and width of images in the decoded cache (default: the largest size used)"
    )
    balanced: bool = Field(False, description="sample every class equally often")

    @property
    def held_out_share(self) -> float:
        """Share of train that is used for validation instead of training."""
        return 0.0 if self.train_on_validation else self.validation_split


class Model(Section):
    """The network; passed to `create_model`."""

    backbone: str = Field(
        backbones.DEFAULT,
        min_length=1,
        description="network of keras.applications, such as efficientnet_v2_b0, or preset of KerasHub (name, address "
        "or folder)",
    )
    weights: str | None = Field(
        "imagenet",
        min_length=1,
        description="imagenet (published weights), null (random weights), or the path of a trained model or of a Keras "
        "weights file for the backbone",
    )
    input_shape: tuple[Side | None, Side | None, Literal[3]] = Field(
        (224, 224, 3), description="height, width and 3 channels; follows data.image_size"
    )
    classes: int | None = Field(None, ge=2, description="number of classes (default: the number of folders)")
    dropout_rate: float = Field(0.0, ge=0, lt=1, description="dropout rate before the classification head")
    l1_factor: float = Field(0.0, ge=0, description="L1 penalty on the head's weights")
    l2_factor: float = Field(0.0, ge=0, description="L2 penalty on the head's weights")
    cosine_scale: float = Field(
        0.0, ge=0, description="scale of a cosine head (normalized features and weights), such as 16; 0: a dense head"
    )
    data_aug_layer: Augmentations | None = Field(
        None, description="Keras augmentation layers with their parameters, by name"
    )

    @field_validator("backbone")
    @classmethod
    def _known(cls, backbone: str) -> str:
        return backbones.backbone_name(backbone)

    @field_validator("weights")
    @classmethod
    def _not_python(cls, weights: str | None) -> str | None:
        if weights is not None and weights.lower() == "none":
            raise ValueError(f"YAML reads {weights} as a name; write null for random weights")
        return weights


class Adam(Section):
    """Adam, as in Keras."""

    learning_rate: float = Field(0.001, gt=0, description="learning rate")
    beta_1: float = Field(0.9, ge=0, lt=1, description="decay rate of the first moment")
    beta_2: float = Field(0.999, ge=0, lt=1, description="decay rate of the second moment")
    epsilon: float = Field(1e-7, gt=0, description="constant added to the denominator for numerical stability")
    amsgrad: bool = Field(False, description="use the maximum of past second moments (AMSGrad)")


class AdamW(Adam):
    """Adam with decoupled weight decay."""

    weight_decay: float = Field(
        0.05, ge=0, description="decoupled weight decay; not applied to normalization layers and biases"
    )


class Sgd(Section):
    """Stochastic gradient descent."""

    learning_rate: float = Field(0.01, gt=0, description="learning rate")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum")
    nesterov: bool = Field(False, description="use Nesterov momentum")
    weight_decay: float = Field(
        0.0, ge=0, description="decoupled weight decay; not applied to normalization layers and biases"
    )


class Optimizer(Section):
    """Exactly one of the optimizers."""

    adam: Adam | None = Field(None, description="the Adam optimizer")
    adamw: AdamW | None = Field(None, description="the AdamW optimizer")
    sgd: Sgd | None = Field(None, description="stochastic gradient descent")

    _filled = field_validator("*", mode="before")(not_null)

    @model_validator(mode="after")
    def _exactly_one(self) -> Optimizer:
        named = [name for name in type(self).model_fields if name in self.model_fields_set]
        if len(named) != 1:
            raise ValueError(f"name exactly one of adam, adamw, sgd; got {' and '.join(named) or 'none'}")
        return self

    @property
    def chosen(self) -> Adam | AdamW | Sgd:
        """The settings of the optimizer that is named."""
        found = self.adam or self.adamw or self.sgd
        assert found is not None  # noqa: S101  (see _exactly_one)
        return found


class Compile(Section):
    """Optimizer, loss and metrics."""

    optimizer: Optimizer = Field(Optimizer(adam=Adam()), description="the optimizer and its settings; exactly one")
    loss: Literal["categorical_crossentropy"] = Field("categorical_crossentropy", description="loss function")
    metrics: list[Literal["accuracy"]] = Field(
        ["accuracy"], min_length=1, max_length=1, description="metrics computed in addition to the loss"
    )


class ModelCheckpoint(Section):
    """When checkpoints are written, under which names, and which are kept."""

    filepath: str = Field(FILEPATH, description="pattern of the checkpoint's file name, .h5 or .keras")
    monitor: Best = Field(
        "val_loss", description="metric that selects the best epoch, which is evaluated; epoch: the last one"
    )
    mode: Mode = Field("auto", description="whether lower (min) or higher (max) is better; auto: by the metric")
    save_best_only: bool = Field(False, description="write a checkpoint only when the monitored metric improves")
    keep: int | None = Field(None, ge=1, description="number of checkpoints to keep, best first (default: all)")

    @field_validator("filepath")
    @classmethod
    def _pattern(cls, filepath: str) -> str:
        """Fill the pattern in once, so that a mistake is found before the first epoch."""
        if not filepath.endswith((".h5", ".keras")):
            raise ValueError(f"must end in .h5 or .keras; got {shown(filepath)}")
        values = {"epoch": 1, "learning_rate": 0.01} | dict.fromkeys(get_args(Monitor), 0.5)
        try:
            filepath.format(**values)
        except KeyError as error:
            name = error.args[0]
            hint = suggestion(name, values) or f"known: {', '.join(values)}"
            raise ValueError(f"{{{name}}} is not a known value; {hint}") from None
        except (ValueError, IndexError, AttributeError, TypeError) as error:
            raise ValueError(f"cannot be filled in: {error}; e.g. model.{{epoch:02d}}-{{val_loss:.4f}}.h5") from None
        return filepath


class TensorBoard(Section):
    """Event files for TensorBoard."""

    log_dir: str = Field("logs", description="folder for event files, relative to the experiment's")
    histogram_freq: int = Field(0, ge=0, description="epochs between two weight histograms; 0: none")


class EarlyStopping(Section):
    """Stop training when the metric no longer improves."""

    monitor: Monitor = Field("val_loss", description="the monitored metric")
    patience: int = Field(0, ge=0, description="epochs without improvement before training stops")
    min_delta: float = Field(0.0, ge=0, description="smallest change that counts as an improvement")
    mode: Mode = Field("auto", description="whether lower (min) or higher (max) is better; auto: by the metric")
    restore_best_weights: bool | None = Field(
        None,
        description="true: evaluate the best epoch by this metric; false: the last; null: as model_checkpoint",
    )

    @property
    def evaluated(self) -> Best | None:
        """Value that model_checkpoint.monitor must have for the epoch to be evaluated; None: anything."""
        if self.restore_best_weights is None:
            return None
        return self.monitor if self.restore_best_weights else "epoch"


class ReduceOnPlateau(Section):
    """Reduce the learning rate when the metric no longer improves."""

    monitor: Monitor = Field("val_loss", description="the monitored metric")
    factor: float = Field(0.1, gt=0, lt=1, description="factor by which the learning rate is multiplied")
    patience: int = Field(10, ge=0, description="epochs without improvement before the rate is reduced")
    mode: Mode = Field("auto", description="whether lower (min) or higher (max) is better; auto: by the metric")
    min_delta: float = Field(1e-4, ge=0, description="smallest change that counts as an improvement")
    cooldown: int = Field(0, ge=0, description="epochs to wait after a reduction")
    min_lr: float = Field(0.0, ge=0, description="lower bound of the learning rate")


class Callbacks(Section):
    """Callbacks, run between epochs."""

    model_checkpoint: ModelCheckpoint = Field(
        ModelCheckpoint(), description="when checkpoints are written and which are kept"
    )
    tensor_board: TensorBoard = Field(TensorBoard(), description="event files for TensorBoard")
    early_stopping: EarlyStopping | None = Field(None, description="stop training when a metric no longer improves")
    reduce_on_plateau: ReduceOnPlateau | None = Field(
        None, description="reduce the learning rate when a metric no longer improves"
    )

    _filled = field_validator("*", mode="before")(not_null)


class Fit(Section):
    """Length of the training and its callbacks."""

    epochs: int = Field(10, ge=1, description="passes over the training images")
    stop_after: int | None = Field(
        None, ge=1, description="epoch after which training stops, on the schedule of all epochs (default: the last)"
    )
    callbacks: Callbacks = Field(Callbacks(), description="callbacks, run between epochs")

    @property
    def last_epoch(self) -> int:
        """The epoch after which training ends, unless something stops it early."""
        return min(self.stop_after or self.epochs, self.epochs)


def _auto_or_number(value: Any) -> Any:  # noqa: ANN401
    """Reject a value that is neither, with one message; pydantic would give one for each type."""
    number = as_number(value)
    if value != "auto" and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
        raise ValueError(f"must be auto or a whole number of at least 1; got {shown(value)}")
    return number


class Hardware(Section):
    """Precision, devices, reproducibility and saving."""

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="compute precision; auto: bfloat16 where it is fast"
    )
    devices: Annotated[Literal["auto"] | Annotated[int, Field(ge=1)], BeforeValidator(_auto_or_number)] = Field(
        "auto",
        description="devices that share each batch (JAX); auto: the most GPUs that divide data.batch_size, else one; "
        "with --hosts, all",
    )
    exact: bool = Field(False, description="bit-identical results across runs on one machine (slower)")
    save_minutes: float = Field(5.0, gt=0, description="most minutes of training between two saves of its state")


class Experiment(Section):
    """A whole YAML file."""

    seed: int = Field(ge=0, le=2**32 - 1, description="random seed of the whole experiment")
    data: Data = Field(description="where the images are and how they are batched")
    model: Model = Field(Model(), description="the network")
    compile: Compile = Field(Compile(), description="optimizer, loss and metrics")
    fit: Fit = Field(Fit(), description="epochs and callbacks")
    recipe: Recipe = Field(Recipe(), description="training recipe: schedule, augmentation, regularisation, EMA")
    hardware: Hardware = Field(Hardware(), description="precision, devices, reproducibility and saving")
    refit_of: str | None = Field(
        None, description="checksum of the checkpoint that this training is a refit of; `train --refit` writes it"
    )

    @model_validator(mode="after")
    def _follow(self) -> Experiment:
        """Derive omitted settings from written ones: either size from the other, and the epochs from their stages."""
        size, shape = self.data.image_size, self.model.input_shape
        if "input_shape" not in self.model.model_fields_set:
            self._replace("model", "input_shape", (*size, 3))
        elif "image_size" not in self.data.model_fields_set and None not in shape:
            self._replace("data", "image_size", shape[:2])
        if self.recipe.stages and "epochs" not in self.fit.model_fields_set:
            self._replace("fit", "epochs", sum(stage.epochs for stage in self.recipe.stages))
        if not self.data.held_out_share:
            self._follow_training()
        stopping = self.fit.callbacks.early_stopping
        if stopping and stopping.evaluated and not self.is_written("fit.callbacks.model_checkpoint.monitor"):
            self._replace("fit.callbacks.model_checkpoint", "monitor", stopping.evaluated)
        return self

    def _follow_training(self) -> None:
        """Base omitted monitors and the file name on the training loss if there are no validation images."""
        for name in ("model_checkpoint", "early_stopping", "reduce_on_plateau"):
            callback = getattr(self.fit.callbacks, name)
            if callback and "monitor" not in callback.model_fields_set:
                self._replace(f"fit.callbacks.{name}", "monitor", "loss")
        if "filepath" not in self.fit.callbacks.model_checkpoint.model_fields_set:
            self._replace("fit.callbacks.model_checkpoint", "filepath", FILEPATH.replace("val_loss", "loss"))

    def is_written(self, name: str) -> bool:
        """Return True if the setting with this dotted name was given explicitly."""
        *sections, key = name.split(".")
        section: Any = self
        for part in sections:
            section = getattr(section, part)
        return key in section.model_fields_set

    def _replace(self, name: str, key: str, value: Any) -> None:  # noqa: ANN401
        """Replace a section with a changed copy; only while the experiment is being constructed."""
        before, _, last = name.rpartition(".")
        section: Any = self
        for part in name.split("."):
            section = getattr(section, part)
        changed = section.model_copy(update={key: value})
        changed.model_fields_set.intersection_update(section.model_fields_set)  # still only what was written
        if before:
            self._replace(before, last, changed)
        else:
            self.__dict__[last] = changed
