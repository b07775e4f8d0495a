"""How fast is one training step of ResNet-50 against stock Keras, PyTorch and the processor, and with frozen stages?

Command:  python benchmarks/training_step.py            (9 minutes on 2 cores; PyTorch joins in if installed)
          python benchmarks/training_step.py --size 128 --batch 64
Expected: at least 1.4 times stock Keras (`model.fit`, TensorFlow) and 0.9 to 1.1 times PyTorch (channels last, the same
          frozen stages) on a processor with avx512_bf16; 2.0 and 1.1 times in float32 at 128 pixels. Two frozen stages
          are 1.2 to 1.3 times as fast as none, three 1.4 to 1.6 times.

All train the same network with the same optimizer on the same synthetic batch, in bfloat16 where the processor has it.
Contenders with the same number of frozen stages take turns.
The ceiling is the fastest of a large matrix product and two convolutions of PyTorch and of TensorFlow (oneDNN), in the
same precision. A contender's share of it counts the floating point operations of convolutions and head only.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from _measure import seconds_in_turns, serve, take_turns

CLASSES = 196
STEPS, ROUNDS = 3, 5
BLOCKS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # of each stage after the stem: width, count, stride
# Of the kernels whose fastest is the ceiling: rows and columns of the matrices; images, height and width, channels in
# and out, and kernel size of the convolutions.
MATRIX = 2048
CONVOLUTIONS = ((32, 28, 256, 256, 3), (32, 28, 512, 512, 1))
Kernels = Mapping[str, tuple[int, Callable[[], object]]]  # by name: floating point operations, and what does them


def synthetic_batch(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return images, np.eye(CLASSES, dtype=np.float32)[rng.integers(CLASSES, size=count)]


def convolution_flops(count: int, side: int, channels: int, filters: int, kernel: int) -> int:
    """Return the floating point operations of a convolution: two for each multiplication and addition.

    Args:
        count: images.
        side: height and width of the output.
        channels, filters: of the input and of the output.
        kernel: its height and width.
    """
    return 2 * count * side**2 * channels * filters * kernel**2


def convolutions(size: int) -> Iterator[tuple[int, bool, int]]:
    """Yield each convolution of ResNet-50, and its head, for one image.

    Yields:
        The number of its stage (the stem is 0), whether its input is that of the stage, and the floating point
        operations of a forward pass.
    """
    side = -(-size // 2)
    yield 0, True, convolution_flops(1, side, 3, 64, 7)
    side, before = -(-side // 2), 64
    for stage, (width, count, stride) in enumerate(BLOCKS, start=1):
        side = -(-side // stride)
        for number in range(count):
            yield stage, number == 0, convolution_flops(1, side, before, width, 1)
            yield stage, False, convolution_flops(1, side, width, width, 3)
            yield stage, False, convolution_flops(1, side, width, 4 * width, 1)
            if number == 0:
                yield stage, True, convolution_flops(1, side, before, 4 * width, 1)
            before = 4 * width
    yield len(BLOCKS), False, 2 * before * CLASSES


def flops_of_step(size: int, freeze: int) -> int:
    """Return the floating point operations of a training step for one image: forward, and back where it is trained.

    The gradient of the weights costs the same as the forward pass, and so does that of the input, which is not needed
    at the front of the first stage that is trained.
    """
    total = 0
    for stage, is_front, flops in convolutions(size):
        passes = 1 if stage < freeze else 2 if stage == freeze and is_front else 3
        total += passes * flops
    return total


def whichcar_step(size: int, count: int, freeze: int) -> Callable[[], int]:
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
    images, labels = synthetic_batch(size, count)

    def steps() -> int:
        for _ in range(STEPS):
            loss, _ = models.train_on_batch(images, labels, (size, size), rate=0.01)
        float(loss)  # on JAX, steps run on until their loss is read
        return count * STEPS

    return steps


def keras_step(size: int, count: int, _: int) -> Callable[[], int]:
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
    data = tf.data.Dataset.from_tensors(synthetic_batch(size, count)).repeat()

    def steps() -> int:
        model.fit(data, steps_per_epoch=STEPS, epochs=1, verbose=0)
        return count * STEPS

    return steps


def torch_step(size: int, count: int, freeze: int) -> Callable[[], int]:
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

    stages, before = [nn.Sequential(*unit(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))], 64
    for width, blocks, stride in BLOCKS:
        stage = nn.Sequential()
        for number in range(blocks):
            stage.append(Block(before, width, stride if number == 0 else 1, project=number == 0))
            before = 4 * width
        stages.append(stage)
    model = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, CLASSES))
    model = model.to(memory_format=torch.channels_last).train()
    for stage in stages[:freeze]:
        stage.requires_grad_(False).eval()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.01, momentum=0.9, nesterov=True)
    bfloat16 = processor_has_bfloat16()
    images, labels = (torch.from_numpy(array) for array in synthetic_batch(size, count))
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
        return count * STEPS

    return steps


def torch_kernels() -> Kernels:
    import torch

    from whichcar.training.hardware import processor_has_bfloat16

    dtype = torch.bfloat16 if processor_has_bfloat16() else torch.float32
    torch.set_grad_enabled(False)
    matrix = torch.rand(MATRIX, MATRIX).to(dtype)
    kernels: dict[str, tuple[int, Callable[[], object]]] = {"matrix": (2 * MATRIX**3, lambda: matrix @ matrix)}
    for count, side, channels, filters, kernel in CONVOLUTIONS:
        layer = torch.nn.Conv2d(channels, filters, kernel, padding=kernel // 2, bias=False)
        layer = layer.to(dtype=dtype, memory_format=torch.channels_last)
        x = torch.rand(count, channels, side, side).to(dtype=dtype, memory_format=torch.channels_last)
        flops = convolution_flops(count, side, channels, filters, kernel)
        kernels[f"convolution {kernel}"] = flops, lambda layer=layer, x=x: layer(x)
    return kernels


def tensorflow_kernels() -> Kernels:
    from whichcar.training.hardware import prepare

    hardware = prepare(backend="tensorflow")
    import tensorflow as tf

    dtype = tf.bfloat16 if hardware.policy == "mixed_bfloat16" else tf.float32
    rng = np.random.default_rng(0)

    def values(*shape: int) -> tf.Tensor:
        return tf.cast(rng.random(shape, np.float32), dtype)

    multiply = tf.function(tf.matmul)  # in a graph, as training steps are
    convolve = tf.function(lambda x, weights: tf.nn.conv2d(x, weights, 1, "SAME"))
    matrix = values(MATRIX, MATRIX)
    kernels: dict[str, tuple[int, Callable[[], object]]] = {"matrix": (2 * MATRIX**3, lambda: multiply(matrix, matrix))}
    for count, side, channels, filters, kernel in CONVOLUTIONS:
        x, weights = values(count, side, side, channels), values(kernel, kernel, channels, filters)
        flops = convolution_flops(count, side, channels, filters, kernel)
        kernels[f"convolution {kernel}"] = flops, lambda x=x, weights=weights: convolve(x, weights)
    return kernels


def fastest(kernels: Kernels) -> Callable[[], int]:
    """Return what runs the fastest of some kernels, and returns its floating point operations."""
    seconds = seconds_in_turns({name: run for name, (_, run) in kernels.items()}, rounds=3)
    flops, run = kernels[max(kernels, key=lambda name: kernels[name][0] / seconds[name])]

    def step() -> int:
        run()
        return flops

    return step


MAKERS = {"Keras": keras_step, "PyTorch": torch_step, "whichcar": whichcar_step}
# By how many stages are frozen: who takes turns. All at once would need too much memory.
CONTENDERS = {0: ("Keras", "PyTorch", "whichcar"), 2: ("PyTorch", "whichcar"), 3: ("PyTorch", "whichcar")}
KERNELS = {"PyTorch's kernels": torch_kernels, "TensorFlow's kernels": tensorflow_kernels}


def print_table(title: str, rates: Mapping[int, Mapping[str, float]], size: int, ceiling: float) -> None:
    """Print a Markdown table of the contenders' images/s and what these are compared with.

    Args:
        rates: images/s, by the number of frozen stages and by name.
        size: height and width of the images.
        ceiling: floating point operations per second.
    """
    print(f"\n{title}; ceiling: {ceiling / 1e9:.0f} GFLOP/s")
    print("\n| | images/s | times Keras | times PyTorch with the same stages frozen | GFLOP/s | share of the ceiling |")
    print("|---|---:|---:|---:|---:|---:|")
    for freeze, group in rates.items():
        for name, rate in group.items():
            peer, speed = group.get("PyTorch"), rate * flops_of_step(size, freeze)
            cells = [f"{name}, {freeze} stages frozen" if freeze else name, f"{rate:.1f}"]
            cells += [f"{rate / rates[0]['Keras']:.2f}", f"{rate / peer:.2f}" if peer else "-"]
            cells += [f"{speed / 1e9:.0f}", f"{speed / ceiling:.2f}"]
            print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time training steps of ResNet-50.")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images (default: 224)")
    parser.add_argument("--batch", type=int, default=32, help="images of a step (default: 32)")
    parser.add_argument("--contender", choices=[*MAKERS, *KERNELS], help=argparse.SUPPRESS)
    parser.add_argument("--freeze", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contender in KERNELS:
        serve(fastest(KERNELS[given.contender]()), warm_up=1)
        return
    if given.contender:
        serve(MAKERS[given.contender](given.size, given.batch, given.freeze), warm_up=1)
        return
    has_torch = importlib.util.find_spec("torch") is not None

    def rates_of(names: Iterable[str], freeze: int, rounds: int, steps: int) -> dict[str, float]:
        options = ["--size", str(given.size), "--batch", str(given.batch), "--freeze", str(freeze), "--contender"]
        present = [name for name in names if has_torch or not name.startswith("PyTorch")]
        commands = {name: [sys.executable, __file__, *options, name] for name in present}
        return take_turns(commands, rounds, steps, os.environ)

    rates = {freeze: rates_of(names, freeze, ROUNDS, steps=1) for freeze, names in CONTENDERS.items()}
    ceiling = max(rates_of(KERNELS, 0, rounds=3, steps=5).values())
    print_table(f"Training step, ResNet-50, {given.size} pixels, batch {given.batch}", rates, given.size, ceiling)


if __name__ == "__main__":
    main()
