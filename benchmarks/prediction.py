"""How fast are images classified, against one `predict` call per image?

Command:  python benchmarks/prediction.py               (about 3 minutes on 2 cores)
Expected: at least 3 times.

Both read the same images from disk with the same ResNet-50 at 224 pixels, in turns. WHICHCAR_DATA names a folder with
car_ims/; else cars are drawn.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from _measure import print_rates

ROUNDS, COUNT = 3, 96


def main() -> None:
    from whichcar.inference.classifier import Classifier
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
        model = create_model(None, (None, None, 3), classes=len(names), image_size=(224, 224))
        save_checkpoint(model, Metadata(names, names, (224, 224), {}, {}, scratch), checkpoint)
        stock = keras.models.load_model(checkpoint, compile=False)
        classifier = Classifier(checkpoint)

        def one_by_one() -> None:
            for path in paths:
                image = keras.utils.load_img(path, target_size=(224, 224))
                stock.predict(np.expand_dims(keras.utils.img_to_array(image), 0), verbose=0)

        sides = {"one predict call an image": one_by_one, "whichcar": lambda: list(classifier.predict(paths))}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(ROUNDS + 1):
            for name, run in sides.items():
                start = time.perf_counter()
                run()
                if turn:
                    seconds[name].append(time.perf_counter() - start)
    rates = {name: COUNT / statistics.median(values) for name, values in seconds.items()}
    print_rates("Classifying images, ResNet-50 at 224 pixels", rates, next(iter(sides)))


if __name__ == "__main__":
    main()
