"""How fast is one training step of ResNet-50 (batch 32) against stock Keras and PyTorch, and with frozen stages?

Command:  python benchmarks/training_step.py            (8 minutes on 2 cores; PyTorch joins in if installed)
          python benchmarks/training_step.py --size 128
Expected: at least 1.4 times stock Keras (`model.fit`, TensorFlow) and 1.0 times PyTorch (channels last) on a processor
          with avx512_bf16; 2.0 and 1.1 times in float32 at 128 pixels. Frozen stages: two 1.2 times, three 1.4 times.

All train the same network with the same optimizer on the same synthetic batch, in bfloat16 where the processor has it.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from _measure import print_rates, serve, take_turns

BATCH, CLASSES = 32, 196
STEPS, ROUNDS = 4, 5


def batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8)
    return images, np.eye(CLASSES, dtype=np.float32)[rng.integers(CLASSES, size=BATCH)]


def whichcar_step(size: int, freeze: int = 0) -> Callable[[], int]:
    from whichcar.config.experiment import Experiment
    from whichcar.training.hardware import prepare
    from whichcar.training.setup import build_models

    settings = {
        "seed": 1,
        "data": {"directory": "unused", "image_size": [size, size]},
        "model": {"weights": None},
        "compile": {"optimizer": {"sgd": {"learning_rate": 0.01, "momentum": 0.9, "nesterov": True}}},
        "recipe": {"freeze": freeze},
    }
    models = build_models(Experiment.model_validate(settings), prepare(), [str(number) for number in range(CLASSES)])
    images, labels = batch(size)

    def steps() -> int:
        for _ in range(STEPS):
            models.train_on_batch(images, labels, (size, size), rate=0.01)
        return BATCH * STEPS

    return steps


def keras_step(size: int) -> Callable[[], int]:
    from whichcar.training.hardware import prepare

    hardware = prepare(backend="tensorflow")
    import keras
    import tensorflow as tf

    keras.mixed_precision.set_global_policy(hardware.policy)
    inputs = keras.Input((size, size, 3))
    x = keras.applications.resnet50.preprocess_input(inputs)
    features = keras.applications.ResNet50(include_top=False, weights=None, input_tensor=x, pooling="avg").output
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax", dtype="float32")(features))
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    data = tf.data.Dataset.from_tensors(batch(size)).repeat()

    def steps() -> int:
        model.fit(data, steps_per_epoch=STEPS, epochs=1, verbose=0)
        return BATCH * STEPS

    return steps


def torch_step(size: int) -> Callable[[], int]:
    import torch
    from torch import nn

    from whichcar.training.hardware import processor_has_bfloat16

    class Block(nn.Module):
        """Keras' ResNet-50 v1 block: the stride is in the first convolution."""

        def __init__(self, before: int, width: int, stride: int, project: bool) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *unit(before, width, 1, stride),
                nn.ReLU(),
                *unit(width, width, 3),
                nn.ReLU(),
                *unit(width, 4 * width, 1),
            )
            self.side = nn.Sequential(*unit(before, 4 * width, 1, stride)) if project else nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.body(x) + self.side(x))

    def unit(before: int, after: int, size: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
        return nn.Conv2d(before, after, size, stride, size // 2), nn.BatchNorm2d(after, eps=1.001e-5)

    blocks, before = [], 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(count):
            blocks.append(Block(before, width, stride if number == 0 else 1, project=number == 0))
            before = 4 * width
    stem = (*unit(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    model = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, CLASSES))
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True)
    bfloat16 = processor_has_bfloat16()
    images, labels = (torch.from_numpy(array) for array in batch(size))
    mean = torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1)

    def one() -> None:
        x = (images.permute(0, 3, 1, 2).float() - mean).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = nn.functional.cross_entropy(model(x).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    def steps() -> int:
        for _ in range(STEPS):
            one()
        return BATCH * STEPS

    return steps


CONTENDERS = {
    "Keras": keras_step,
    "PyTorch": torch_step,
    "whichcar": whichcar_step,
    "whichcar, 2 stages frozen": partial(whichcar_step, freeze=2),
    "whichcar, 3 stages frozen": partial(whichcar_step, freeze=3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time training steps of ResNet-50.")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images (default: 224)")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contender:
        serve(CONTENDERS[given.contender](given.size), warm_up=1)
        return
    present = [name for name in CONTENDERS if name != "PyTorch" or importlib.util.find_spec("torch")]
    commands = {name: [sys.executable, __file__, "--size", str(given.size), "--contender", name] for name in present}
    rates = take_turns(commands, ROUNDS, 1, os.environ)
    for reference in ("Keras", "PyTorch"):
        if reference in rates:
            print_rates(f"Training step, ResNet-50, {given.size} pixels, batch {BATCH}", rates, reference)


if __name__ == "__main__":
    main()
