import pytest
import torch

from engine.accel import Accel
from engine.data.base import Dataset
from engine.synthetic import SyntheticSet


def make_data(channels=1, size=8, classes=3, count=120, seed=0):
    """Bright squares, one place for each class, in noise: easy, but not without training."""
    generator = torch.Generator().manual_seed(seed)

    def images(labels):
        out = torch.randint(0, 90, (len(labels), channels, size, size), generator=generator, dtype=torch.uint8)
        step = size // 3
        for image, label in zip(out, labels.tolist(), strict=True):
            row, column = divmod(label, 3)
            image[:, row * step : (row + 1) * step + 1, column * step : (column + 1) * step + 1] += 120
        return out

    train = torch.arange(count) % classes
    test = torch.arange(count // 2) % classes
    names = tuple(f"class {i}" for i in range(classes))
    normal = ((0.2,) * channels, (0.2,) * channels)
    return Dataset("squares", "Squares", names, images(train), train, images(test), test, *normal)


def make_set(data, ipc=2, **changes):
    chosen = torch.cat([members[:ipc] for members in data.by_class])
    values = {
        "images": data.normalise(data.train_images[chosen]),
        "labels": data.train_labels[chosen],
        "dataset": data.name,
        "classes": data.classes,
        "mean": data.mean,
        "std": data.std,
        "kind": "random",
    }
    return SyntheticSet(**(values | changes))


@pytest.fixture
def data():
    return make_data()


@pytest.fixture
def cpu():
    return Accel(torch.device("cpu"))
