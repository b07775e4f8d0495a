"""How fast are images classified: by Keras, and by ONNX Runtime with a bundle?

Command:  python benchmarks/prediction.py               (about 5 minutes on 2 cores)
Expected: whichcar with Keras at least 3 times one `predict` call per image; with a bundle, float32 faster than Keras in
          float32, int8 at least 2 times that (AVX2; more with VNNI); both at least 0.9 of ONNX Runtime with images in
          memory.

All but the last two read the same images from disk, in turns. int8 is the model that comes with whichcar, a ResNet-50
at 256 pixels; the others are one ResNet-50 at 224 pixels. "In memory" calls ONNX Runtime alone with decoded images, in
as many threads as there are cores. WHICHCAR_DATA names a folder with car_ims/; else cars are drawn.
"""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from _measure import print_rates, seconds_in_turns

ROUNDS, COUNT = 3, 96
SIZE = (224, 224)


def main() -> None:
    from whichcar.exporting.onnx import float32_copy, to_onnx
    from whichcar.images.pixels import Pixels
    from whichcar.images.read import read_resized
    from whichcar.inference.bundle import Bundle, read_bundle, write_bundle
    from whichcar.inference.classifier import Classifier
    from whichcar.inference.released import find_model
    from whichcar.inference.runtimes import KerasRuntime, OnnxRuntime
    from whichcar.records import Metadata
    from whichcar.synthetic.draw import draw
    from whichcar.training.hardware import prepare
    from whichcar.training.network.resnet50 import create_model
    from whichcar.training.run.checkpoint import save_checkpoint

    prepare()
    import keras

    with tempfile.TemporaryDirectory() as scratch:
        data = Path(os.environ.get("WHICHCAR_DATA") or scratch)
        if data == Path(scratch):
            draw(data)
        paths = sorted((data / "car_ims").iterdir())[:COUNT]
        checkpoint = Path(scratch) / "model.keras"
        names = tuple(f"class {number}" for number in range(196))
        model = create_model(None, (None, None, 3), classes=len(names), image_size=SIZE)
        save_checkpoint(model, Metadata(names, names, SIZE, {}, {}, scratch), checkpoint)
        stock = keras.models.load_model(checkpoint, compile=False)
        network = to_onnx(float32_copy(checkpoint), SIZE, "the network")
        described = {"class_names": names, "class_folders": names, "image_size": SIZE, "backbone": "resnet50"}
        described |= {"licence": "", "created": "", "whichcar": ""}
        forms = {"float32": Path(scratch) / "float32.whichcar", "int8": find_model()}
        write_bundle(Bundle(name="float32", network=network, precision="float32", **described), forms["float32"])

        def one_by_one() -> None:
            for path in paths:
                image = keras.utils.load_img(path, target_size=SIZE)
                stock.predict(np.expand_dims(keras.utils.img_to_array(image), 0), verbose=0)

        def in_memory(runtime: OnnxRuntime, images: list[Pixels]) -> None:
            with ThreadPoolExecutor(runtime.callers) as pool:
                list(pool.map(lambda image: runtime(image[None]), images))

        float32 = Classifier(checkpoint)
        float32._runtime = KerasRuntime(float32_copy(checkpoint), len(names), np.uint8)
        models = {"whichcar, Keras float32": float32, "whichcar, Keras": Classifier(checkpoint)}
        models |= {f"whichcar, bundle {form}": Classifier(path, crop=False) for form, path in forms.items()}
        sides = {"one predict call an image": one_by_one}
        sides |= {name: lambda model=model: model.predict(paths) for name, model in models.items()}
        for form, file in forms.items():
            bundle = read_bundle(file)
            runtime, images = OnnxRuntime(bundle, file), [read_resized(path, bundle.image_size) for path in paths]
            sides[f"ONNX Runtime {form}, images in memory"] = partial(in_memory, runtime, images)
        rates = {name: COUNT / seconds for name, seconds in seconds_in_turns(sides, ROUNDS).items()}
    print_rates("Classifying images, ResNet-50 at 224 pixels (int8: 256)", rates, "whichcar, Keras float32")


if __name__ == "__main__":
    main()
