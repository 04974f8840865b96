"""Small folders of images with annotations in COCO's and LabelMe's JSON, of drawn rectangles and triangles."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (20, 30)  # height and width
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
LARGE = [2, 2, 20, 2, 20, 15, 2, 15]  # x, y, x, y ... of a rectangle
SMALL = [5, 5, 12, 5, 12, 9, 5, 9]


def image(path, seed=0, size=SIZE):
    """Write an image of noise; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)
    return path


def instance(number, image_id=1, category_id=3, segmentation=(LARGE,), **more):
    """Return an entry of COCO's ``annotations``; the segmentation is a tuple of polygons, or an RLE."""
    outline = [*segmentation] if isinstance(segmentation, tuple) else segmentation
    return {"id": number, "image_id": image_id, "category_id": category_id, "segmentation": outline} | more


def coco(path, names=("7.jpg",), instances=None, **more):
    """Write COCO's JSON that lists images by name, with the ids 1, 2 ...; by default, each has both rectangles."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for i, name in enumerate(names, 1)]
    if instances is None:
        instances = [
            instance(2 * i + large, i, 3 if large else 7, ((LARGE if large else SMALL),))
            for i in range(1, len(names) + 1)
            for large in (0, 1)
        ]
    path.write_text(json.dumps({"images": images, "categories": CATEGORIES, "annotations": instances} | more))
    return path


def rectangle(polygon, canvas, value):
    """Fill the rectangle of a polygon as its border pixels are defined: those of all corners are inside."""
    canvas[polygon[1] : polygon[5] + 1, polygon[0] : polygon[4] + 1] = value
    return canvas


def truth():
    """Return the labels of both rectangles: background 0, cat 1 and dog 2."""
    return rectangle(SMALL, rectangle(LARGE, np.zeros(SIZE, np.uint8), 1), 2)


def rle(mask, *, compressed=False):
    """Encode a mask (H, W) as COCO's run lengths."""
    flat = np.concatenate([[0], mask.T.ravel() != 0, [0]]).astype(int)
    edges = np.flatnonzero(np.diff(flat))
    ends = [0, *edges.tolist(), *([] if edges.size and edges[-1] == mask.size else [mask.size])]
    counts = np.diff(ends).tolist()
    return {"size": list(mask.shape), "counts": compress(counts) if compressed else counts}


def compress(counts):
    """Write run lengths as pycocotools does: from the third on as differences, in groups of five bits."""
    text = ""
    for i, count in enumerate(counts):
        value, more = count - counts[i - 2] * (i > 2), True
        while more:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            text += chr((group | 32 * more) + 48)
    return text


def shape(label, points, kind="polygon", **more):
    """Return an entry of LabelMe's ``shapes``; the points are flat: x, y, x, y ..."""
    pairs = [list(points[i : i + 2]) for i in range(0, len(points), 2)]
    return {"label": label, "points": pairs, "shape_type": kind, "group_id": None, "flags": {}} | more


def labelme(path, shapes=None, **more):
    """Write LabelMe's JSON; by default, of both rectangles."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = [shape("cat", LARGE), shape("dog", SMALL)] if shapes is None else shapes
    about = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"..\\{path.stem}.jpg"}
    about |= {"imageData": "not base64", "imageHeight": SIZE[0], "imageWidth": SIZE[1]}
    path.write_text(json.dumps(about | more))
    return path
