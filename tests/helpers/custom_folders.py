"""Small folders of custom images and labels, in the variants that users have."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (20, 30)
NAMES = ("background", "cat", "dog")


def label(i, classes=3, size=SIZE):
    """Return a label map, (H, W) uint8, that holds every class."""
    numbers = np.random.default_rng(i).integers(0, classes, size)
    numbers.flat[:classes] = range(classes)
    return numbers.astype(np.uint8)


def write(root, n=6, labels=label, ending="png", names=NAMES, folders=("images", "labels")):
    """Write n images p0.jpg ... with the arrays that ``labels`` returns for their numbers; return the folder."""
    root = Path(root)
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(n):
        rgb = np.random.default_rng(100 + i).integers(0, 256, (*SIZE, 3), np.uint8)
        Image.fromarray(rgb).save(root / folders[0] / f"p{i}.jpg", quality=95)
        Image.fromarray(labels(i)).save(root / folders[1] / f"p{i}.{ending}")
    if names:
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def mask(i):
    """Return a label map, (H, W) uint8, of 0 and 255."""
    return (label(i, 2) * 255).astype(np.uint8)


def paint(i):
    """Return a label map of three classes in VOC's colours, (H, W, 3) uint8."""
    return np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)[label(i)]
