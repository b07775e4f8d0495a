from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import h5py
import numpy as np
import pytest
from PIL import Image

from whichcar.errors import CheckpointError, ConfigError
from whichcar.images.read import read_image, read_resized
from whichcar.synthetic.draw import draw
from whichcar.training.hardware import prepare

prepare("float32")
import keras  # noqa: E402

from whichcar.training.network.backbones import freeze  # noqa: E402
from whichcar.training.network.batch_norm import FusedBatchNormalization  # noqa: E402
from whichcar.training.network.random_crop import RandomResizedCrop  # noqa: E402
from whichcar.training.network.resnet50 import create_model, load_saved_model, training_copy  # noqa: E402
from whichcar.training.network.strided_convolution import StridedConv2D  # noqa: E402

from ...permissions import only  # noqa: E402

FLIP = {"random_flip": {"mode": "horizontal"}}
SIMPLE = "vgg16"  # built several times as fast, where any backbone does
FUSED = keras.backend.backend() == "tensorflow"


@pytest.fixture(scope="module")
def penalised() -> keras.Model:
    """The network with everything on, and an L1 of 0.01, as in the reference project."""
    keras.utils.set_random_seed(0)
    return create_model(None, (32, 32, 3), 0.4, FLIP, classes=196, l1_factor=0.01, l2_factor=0.001)


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    """Keras' own ResNet-50 without its top, all weights random, also those of the norms."""
    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(include_top=False, weights=None, pooling="avg")
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.3, 1.2, weight.shape) for weight in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def notop(backbone: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights in the form of Keras' published file, `resnet50_..._notop.h5`."""
    path = tmp_path_factory.mktemp("weights") / "resnet50_notop.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in backbone.layers]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.2.4-tf"
        for layer in backbone.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{variable.name}:0" for variable in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, values in zip(names, layer.get_weights(), strict=True):
                group.create_dataset(name, data=values)
    return path


def test_the_layers_are_in_the_documented_order(penalised: keras.Model) -> None:
    layers = penalised.layers
    assert [layer.name for layer in layers[:3]] == ["image", "data_aug", "preprocessing"]
    assert [layer.name for layer in layers[-3:]] == ["avg_pool", "dropout", "predictions"]
    assert isinstance(layers[1], keras.Sequential)
    assert isinstance(layers[1].layers[0], keras.layers.RandomFlip)
    assert (layers[-2].rate, layers[-1].units, layers[-1].activation.__name__) == (0.4, 196, "softmax")
    assert (penalised.input_shape, penalised.output_shape) == ((None, 32, 32, 3), (None, 196))
    # The 23.6 million numbers of ResNet-50 without its top, and the head.
    assert penalised.count_params() == 23_587_712 + 2048 * 196 + 196


def test_a_cosine_head_answers_by_angle_alone_and_stays_so_while_it_trains(noise: np.ndarray) -> None:
    keras.utils.set_random_seed(0)
    model = create_model(None, (32, 32, 3), classes=5, cosine_scale=20.0, backbone=SIMPLE)
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers), "Keras alone loads it"
    pooled = model.get_layer("dropout").input
    features = np.asarray(keras.Model(model.input, pooled)(noise[:8], training=False))
    head = training_copy(keras.Model(pooled, model.output), "mixed_bfloat16", fused=False)
    kernel = head.get_layer("predictions").kernel

    def by_angle() -> np.ndarray:
        cosines = features @ kernel.numpy() / np.linalg.norm(features, axis=1, keepdims=True)
        return np.asarray(keras.ops.softmax(20 * cosines / np.linalg.norm(kernel.numpy(), axis=0)))

    np.testing.assert_allclose(np.asarray(model(noise[:8], training=False)), by_angle(), rtol=1e-4)
    for scaled in (features, 7 * features):
        np.testing.assert_allclose(np.asarray(head(scaled, training=False)), by_angle(), rtol=0.02, atol=1e-3)
    before = kernel.numpy()
    head.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
    head.train_on_batch(features, np.eye(5)[np.arange(8) % 5])
    assert np.abs(kernel.numpy() - before).max() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(kernel.numpy(), axis=0), 1, rtol=1e-5)


def test_a_plain_call_changes_nothing_in_the_image(penalised: keras.Model, noise: np.ndarray) -> None:
    front = keras.Model(penalised.input, penalised.get_layer("preprocessing").output)
    upright = noise - np.array([123.68, 116.779, 103.939], np.float32)
    np.testing.assert_allclose(np.asarray(front(noise)), upright, atol=1e-3)
    assert np.abs(np.asarray(front(noise, training=True)) - upright).max() > 1, "flips while training"


def test_an_empty_augmentation_adds_no_layer(resnet: keras.Model) -> None:
    assert [layer.name for layer in resnet.layers[:3]] == ["image", "resize", "preprocessing"]
    assert resnet.losses == []


def test_an_l1_of_one_hundredth_starts_the_loss_above_a_hundred(penalised: keras.Model) -> None:
    kernel = penalised.get_layer("predictions").kernel.numpy().astype(float)
    penalty = float(sum(penalised.losses))
    assert penalty == pytest.approx(0.01 * np.abs(kernel).sum() + 0.001 * (kernel**2).sum(), rel=1e-4)
    # And the cross-entropy of 196 classes guessed alike: the "about 107" of the reference project.
    assert penalty + np.log(196) == pytest.approx(109, abs=3)


def test_answers_are_probabilities_of_any_image(resnet: keras.Model, noise: np.ndarray) -> None:
    answers = np.asarray(resnet(noise, training=False))
    assert (answers.shape, answers.dtype) == ((64, 5), np.float32)
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-5)
    assert 0.25 < answers.max(1).mean() < 0.9, "neither all alike nor certain, or the tests below prove little"
    floats = np.asarray(resnet(noise.astype(np.float32), training=False))
    np.testing.assert_allclose(floats, answers, atol=1e-6)
    assert np.asarray(resnet(noise[:3].repeat(3, axis=2))).shape == (3, 5)


@pytest.mark.slow
def test_one_image_and_sixty_four_get_the_same_answers(resnet: keras.Model, noise: np.ndarray) -> None:
    """With batch-norm in training mode the reference project fell from .82 to .018."""
    together = resnet.predict_on_batch(noise)
    apart = np.concatenate([resnet.predict_on_batch(image[None]) for image in noise[:6]])
    np.testing.assert_allclose(apart, together[:6], atol=5e-4)
    before = resnet.get_weights()
    # A plain call is a prediction too, though Keras' preprocessing layers take it for training.
    np.testing.assert_allclose(np.asarray(resnet(noise[:1])), together[:1], atol=5e-4)
    for weight, kept in zip(resnet.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)
    in_training = np.asarray(training_copy(resnet, "float32", fused=False)(noise[:2], training=True))
    assert np.abs(in_training - together[:2]).max() > 0.01, "the batch counts while training"


def test_the_training_copy_gives_the_same_predictions(resnet: keras.Model, noise: np.ndarray) -> None:
    crop = RandomResizedCrop((32, 32), name="random_resized_crop")
    front = keras.Sequential([crop], name="resize")
    form = training_copy(resnet, "float32", fused=FUSED, front=front, batch_norm_momentum=0.7)
    images = noise[:16].repeat(2, axis=1)
    np.testing.assert_allclose(
        np.asarray(form(images, training=False)), np.asarray(resnet(images, training=False)), atol=1e-3
    )
    norms = [layer for layer in form.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 53
    assert {(norm.momentum, type(norm)) for norm in norms} == {
        (0.7, FusedBatchNormalization if FUSED else keras.layers.BatchNormalization)
    }
    strided = [layer for layer in form.layers if isinstance(layer, keras.layers.Conv2D) and layer.strides != (1, 1)]
    kinds = [type(layer) for layer in strided if layer.kernel_size == (1, 1)]
    assert kinds == 6 * [StridedConv2D if FUSED else keras.layers.Conv2D]
    assert form.get_layer("resize") is front
    assert [w.shape for w in form.weights] == [w.shape for w in resnet.weights]
    for weight, truth in zip(form.get_weights(), resnet.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, truth)

    freeze(form, "resnet50", 2)
    moved = {layer.name for layer in form.layers if layer.trainable and layer.weights}
    assert {name.split("_")[0] for name in moved} == {"conv3", "conv4", "conv5", "predictions"}
    before = {layer.name: layer.get_weights() for layer in norms}
    form(noise[:4], training=True)
    for norm in norms:
        same = all((now == old).all() for now, old in zip(norm.get_weights(), before[norm.name], strict=True))
        assert same == norm.name.startswith(("conv1_", "conv2_")), norm.name
    freeze(form, "resnet50", 5)
    assert [variable.path for variable in form.trainable_variables] == ["predictions/kernel", "predictions/bias"]


@pytest.mark.slow
def test_backbone_weights_see_the_image_as_keras_shows_it(
    backbone: keras.Model, notop: Path, noise: np.ndarray
) -> None:
    """Keras' preprocessing turns RGB to BGR; here the first kernel is turned instead."""
    model = create_model(notop, (32, 32, 3), classes=3)
    features = np.asarray(keras.Model(model.input, model.get_layer("avg_pool").output)(noise[:8]))
    images = keras.applications.resnet50.preprocess_input(noise[:8].astype(np.float32))
    expected = np.asarray(backbone(images))
    largest = np.abs(expected).max()
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * largest)
    turned = np.asarray(backbone(np.ascontiguousarray(images[..., ::-1])))
    assert np.abs(turned - expected).max() > 0.01 * largest, "the order of the colours matters"


@pytest.mark.slow
def test_backbone_weights_in_the_form_of_today_are_read_too(backbone: keras.Model, notop: Path, tmp_path: Path) -> None:
    path = tmp_path / "resnet50_notop.weights.h5"
    backbone.save_weights(path)
    today, published = (create_model(weights, classes=3, image_size=(32, 32)) for weights in (path, notop))
    for weight, truth in zip(today.get_weights()[:-2], published.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(weight, truth)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:.*")
def test_a_trained_model_is_loaded_as_it_is(tmp_path: Path, noise: np.ndarray, suffix: str) -> None:
    image = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    trained = keras.Model(image, keras.layers.Dense(7, "softmax")(x))
    trained.save(tmp_path / f"trained{suffix}")
    for path in (tmp_path / f"trained{suffix}", str(tmp_path / f"trained{suffix}")):
        loaded = create_model(path, classes=3, dropout_rate=0.5)
        np.testing.assert_allclose(loaded.predict_on_batch(noise), trained.predict_on_batch(noise), atol=1e-6)


def test_without_a_way_to_imagenet_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise URLError("Name or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", unreachable)
    with pytest.raises(ConfigError) as caught:
        create_model("imagenet", (32, 32, 3), classes=3)
    message = str(caught.value)
    with_top = "/keras-applications/resnet/resnet50_weights_tf_dim_ordering_tf_kernels.h5"
    start = "model.weights: the ImageNet weights of ResNet50 could not be downloaded (Name or service not known); fetch"
    assert message.startswith(f"{start} https://")
    assert message.endswith(f"{with_top} where there is a network and give its path as model.weights")


def test_the_number_of_classes_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"model\.classes: missing; give the number of classes"):
        create_model(None)


@pytest.mark.parametrize("name", ["nothing.keras", "nothing.h5"])
def test_weights_that_are_not_there_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"model\.weights: no file .*{name}; give imagenet, null, or the path"):
        create_model(tmp_path / name, classes=3)


def test_weights_that_are_a_folder_are_distinguished_from_missing_ones(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a folder; give a checkpoint in it, such as the one that"):
        create_model(tmp_path, classes=3)


@pytest.mark.parametrize("name", ["secret.keras", "secret.h5"])
def test_weights_that_may_not_be_read_are_not_called_damaged(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"secret")
    with only(0, tmp_path / name), pytest.raises(PermissionError) as caught:
        create_model(tmp_path / name, classes=3)
    assert caught.value.filename == str(tmp_path / name)


@pytest.mark.parametrize("name", ["broken.keras", "broken.h5"])
def test_a_broken_file_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"neither a model nor weights")
    with pytest.raises(CheckpointError) as caught:
        create_model(tmp_path / name, classes=3)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
    with pytest.raises(CheckpointError, match="holds no VGG16; give the 'notop' weights"):
        create_model(path, classes=3, backbone=SIMPLE)


def test_a_model_with_layers_that_keras_does_not_know_is_one_line(tmp_path: Path) -> None:
    class Strange(keras.layers.Layer):
        def call(self, x: object) -> object:
            return x

    keras.Sequential([keras.Input((3,)), Strange()]).save(tmp_path / "strange.keras")
    with pytest.raises(CheckpointError, match="not a model that Keras can load") as caught:
        load_saved_model(tmp_path / "strange.keras")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_saved_model_resizes_nearly_as_images_are_read(tmp_path: Path, suffix: str) -> None:
    """Within the tolerance that the documentation states: a third party may feed the saved model whole images."""
    layer = keras.layers.Resizing(96, 96, interpolation="bilinear", antialias=True)
    draw(tmp_path, classes=2, per_class=4, size=(480, 640))
    means = []
    for number, path in enumerate(sorted((tmp_path / "car_ims").iterdir())):
        target = tmp_path / f"{number}.{suffix}"
        Image.open(path).save(target, quality=95)
        exact = np.asarray(layer(read_image(target)[None].astype(np.float32)))[0]
        means.append(np.abs(exact - read_resized(target, (96, 96))).mean())
    assert max(means) < (0.5 if suffix == "png" else 2.5)
