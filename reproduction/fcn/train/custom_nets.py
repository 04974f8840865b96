"""Nets for custom images and classes: a published net with another number of classes, and the recipe to train it.

``adapt_recipe`` returns the recipe; ``write_deploy_files`` writes the files that ``Segmenter.load`` needs besides the
weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from reproduction.caffe.errors import DataError, ReproductionError, StrPath
from reproduction.caffe.formats import hashes, image_files, prototxt
from reproduction.fcn.datasets import SPECS, NetRecord
from reproduction.fcn.datasets.custom import color_labels, find_files, folder, own_images
from reproduction.fcn.datasets.custom.color_labels import RGB, Reading
from reproduction.fcn.images import decode
from reproduction.fcn.nets import net_files, registry, surgery
from reproduction.fcn.segment import card
from reproduction.fcn.train import best_weights, recipes
from reproduction.fcn.train.recipes import Recipe

#: The number of pixels that the published learning rates were chosen for: VOC's images have 500 x 375.
PUBLISHED_PIXELS = 500 * 375

#: Files and folders that only a user's data have, not a data root or a published data set.
_MARKS = {"classes.txt", "palette.txt", "labelmap.txt", "class_names.txt", "codes.txt"} | {
    *("images", "labels", "masks", "imgs", "img_dir", "leftImg8bit")
}


@dataclass(frozen=True)
class CustomData:
    """The facts about a user's folder of images and labels that its net and training depend on.

    Attributes:
        root: the folder, with a structure that ``datasets.custom.find_files`` describes.
        classes: the class names; the index is the label.
        palette: How label images are read. A palette: by colour. ``"indices"``: by pixel value. None: by pixel value,
            if the image's own palette proves that these are class numbers.
        side: images whose longer side exceeds this number of pixels are shrunk to it; 0 shrinks none.
        shrunk: the number of training images that are shrunk.
        pixels: the mean number of pixels of a training image, after shrinking.
        train_images: the number of training images.
        val_images: the number of validation images.
        unlabelled: the number of images without a label, which are skipped.
        description: how the labels are read, in one line; empty for the plain layout.
        colours: the colour of each class, and maybe of void, if the palette or the format defines them; else None.
    """

    root: Path
    classes: tuple[str, ...]
    palette: Reading
    side: int
    shrunk: int
    pixels: int
    train_images: int
    val_images: int
    unlabelled: int
    description: str = ""
    colours: Mapping[str, RGB] | None = None


def is_custom_folder(root: StrPath) -> bool:
    """Return True if a folder is meant as a user's images and labels, not as a data root or a published data set.

    True if it contains a file or folder of ``_MARKS``, annotations in COCO's or LabelMe's JSON, a folder ``train`` of
    images, or image files but no folders. An incomplete custom data set also returns True, so that ``inspect_folder``
    reports what is missing, instead of another data set being downloaded or drawn there.
    """
    place = Path(root)
    if not place.is_dir():
        return False
    names = {path.name for path in place.iterdir()}  # exact case on any file system: SIFT Flow has Images/
    return bool(names & _MARKS) or any(
        test(place) for test in (find_files.is_album, find_files.is_annotated, find_files.has_split_folder)
    )


def find_custom_data(
    data: Path,
    classes: Path | None,
    palette: Path | None,
    side: int,
    net_names: Sequence[str],
    *,
    may_be_missing: bool,
) -> CustomData | None:
    """Return the custom data set in a folder; None if the folder is a data root of published data sets.

    Args:
        data: the folder.
        classes: a file of class names, which only custom data have; see ``inspect_folder``.
        palette: a file of colours, which only custom data have; see ``inspect_folder``.
        side: see ``inspect_folder``.
        net_names: the nets to train. The images of a data set that is drawn need no folder beforehand.
        may_be_missing: whether a data root that does not exist is left for later checks.

    Raises:
        ReproductionError: If the folder does not exist, its content is invalid, or there is no such net.
    """
    if classes or palette or is_custom_folder(data):
        return inspect_folder(data, classes, palette, side)
    planned = [recipes.find_recipe(name) for name in net_names]
    for recipe in planned:
        if recipe.record and recipe.record.dataset == own_images.SPEC:
            want, remedy = "--data FOLDER, with images and labels", "docs/own_data.md shows what it contains."
            raise DataError(f"{recipe.name} is trained on your own images", path=data, want=want, remedy=remedy)
    is_drawn = any(SPECS[recipe.dataset].draw for recipe in planned if recipe.dataset)
    if not (is_drawn or data.is_dir() or may_be_missing):
        raise DataError("there is no such folder", path=data)
    if not (is_drawn or may_be_missing or any(data.iterdir())):  # before missing weights are named
        remedy = "docs/own_data.md shows what your own images and labels are called; `fcn fetch` fetches VOC."
        raise DataError("the folder is empty", path=data, remedy=remedy)
    return None


def inspect_folder(
    root: StrPath, classes: StrPath | None = None, palette: StrPath | None = None, side: int = own_images.SIDE
) -> CustomData:
    """Inspect a custom data set: its splits, its classes and the sizes of its images, without decoding them.

    Args:
        root: the folder.
        classes: a file of class names; None selects the folder's classes.txt.
        palette: a file of colours, ``voc`` or ``indices``; None selects the folder's palette.txt.
        side: images whose longer side exceeds this number of pixels are shrunk to it; 0 shrinks none.

    Raises:
        DataError: If the folder or its class names are missing, there are fewer than two classes, no training image
            exists, or a file is broken.
    """
    files, side = find_files.list_files(root), folder.check_side_param(side)
    names, reading = folder.find_classes(root, classes, palette)
    names = folder.choose_classes(files, names)
    if names is None:
        want = "--classes FILE or classes.txt, one name a line, the first for label 0"
        raise DataError("the names of the classes are unknown", path=root, want=want)
    if len(names) < 2:
        raise DataError("a data set needs at least two classes", path=root, got=names[0], want="two classes or more")
    ids = files.ids("train")
    train_images = [files.images[image_id] for image_id in ids if image_id in files.images]
    if not train_images:
        raise DataError("there is no training image", path=root)
    sizes = [_size(path) for path in train_images]
    fitted = [decode.fit_size(size, side) for size in sizes]
    pixels = sum(height * width for height, width in fitted) // len(fitted)
    shrunk = sum(size != small for size, small in zip(sizes, fitted, strict=True))
    colours = folder.choose_colours(files, names, reading)
    counts = (len(ids), len(files.ids("val")), len(files.images.keys() - files.labels.keys()))
    others = [name for name in files.annotations.names() if name not in names] if files.annotations else []
    description = files.description + (f"; not among the classes: {', '.join(others)}" if others else "")
    return CustomData(files.root, names, reading, side, shrunk, pixels, *counts, description, colours)


def _size(path: Path) -> tuple[int, int]:
    with image_files.open_image(path) as image:
        return image.height, image.width


def adapt_published(base: NetRecord, custom: CustomData) -> NetRecord:
    """Return a copy of a published net's record with the classes, data layers and learning rate for a custom data set.

    Args:
        base: a net with one colour input and one kind of labels; not those with depth or HHA, nor SIFT Flow's.
        custom: the custom data set.

    Raises:
        ReproductionError: If the net has other inputs, or several kinds of labels.
    """
    if base.inputs != {"data": "color"} or len(base.heads) != 1:
        fit = [name for name, each in registry.NETS.items() if each.inputs == {"data": "color"}]
        names = ", ".join(name for name in fit if len(registry.NETS[name].heads) == 1)
        raise ReproductionError(
            f"{base.name} needs other inputs or labels than one image and one label map", want=f"one of {names}"
        )
    dataset = base.dataset
    spec = replace(
        own_images.SPEC,
        classes={"label": custom.classes},
        test_iter=custom.val_images,
        max_iter=dataset.max_iter,
        snapshot=dataset.snapshot,
        schedule=dataset.schedule,
        params={
            "classes": list(custom.classes),
            "palette": dict(custom.palette) if isinstance(custom.palette, Mapping) else custom.palette,
            "side": custom.side,
        },
    )
    return replace(base, dataset=spec, base_lr=scale_base_lr(base, custom), caffemodel=None)


def scale_base_lr(base: NetRecord, custom: CustomData) -> float:
    """Return the published ``base_lr``, scaled to the mean size of the custom training images.

    The loss of most nets is a sum over pixels, so that twice as many pixels double the gradient. The rate is unchanged
    if the loss is a mean, or if the solver is Adam (Mini-VOC), whose steps do not depend on the scale of the loss.

    Args:
        base: the record of the published net.
        custom: the custom data set.
    """
    if base.normalize or base.solver.get("type") == "Adam":
        return base.base_lr
    return float(f"{base.base_lr * float(Fraction(PUBLISHED_PIXELS, custom.pixels)):.3g}")


def adapt_recipe(net_name: str, custom: CustomData) -> Recipe:
    """Return the recipe of a published net, adapted to the classes and images of a custom data set.

    Args:
        net_name: the name of the published net, such as ``voc-fcn8s``.
        custom: the custom data set.

    Raises:
        ReproductionError: If there is no such net, it is a classifier of whole images, or it has other inputs or
            several kinds of labels.
    """
    record = recipes.find_recipe(net_name).record
    if record is None:
        raise ReproductionError(
            f"{net_name} classifies whole images, not their pixels", remedy="Choose a segmentation net."
        )
    return replace(recipes.build_recipe(adapt_published(record, custom)), dataset="")


def find_recipes(net_names: Sequence[str], custom: CustomData | None) -> list[Recipe]:
    """Return the recipes of nets, adapted to custom data if there are any.

    Raises:
        ReproductionError: If there is no recipe of this name, or the net cannot be trained on custom data.
    """
    return [adapt_recipe(name, custom) if custom else recipes.find_recipe(name) for name in net_names]


def describe_changes(stages: Sequence[Recipe], custom: CustomData) -> list[str]:
    """Return sentences that describe the custom data, and how the recipes differ from the published ones.

    Args:
        stages: the adapted recipes, in the order in which they are trained.
        custom: the custom data set.
    """
    unlabelled = f"; {custom.unlabelled} without a label are skipped" if custom.unlabelled else ""
    notes = [f"{custom.root}: {custom.description}"] if custom.description else []
    notes += [
        f"{custom.root}: {len(custom.classes)} classes: {', '.join(custom.classes)}",
        f"{custom.train_images} images to train on, {custom.val_images} to validate on{unlabelled}",
    ]
    if custom.shrunk:
        notes.append(
            f"{custom.shrunk} images are longer than {custom.side} pixels, and are shrunk to that size with their"
            " labels; --side 0 keeps their size, and takes more memory and time"
        )
    for stage in stages:
        published_lr = registry.NETS[stage.name].base_lr
        assert stage.record is not None
        new_layers = f"{', '.join(surgery.find_new_layers(stage.record))} and the upsampling layers are new"
        if not stage.record.parents:
            new_layers = "all layers start from random values"
        notes.append(f"{stage.name}: {new_layers}, for {len(custom.classes)} classes")
        if stage.record.base_lr != published_lr:
            notes.append(
                f"{stage.name}: base_lr {published_lr:g} is for images of {PUBLISHED_PIXELS:,} pixels; these have"
                f" {custom.pixels:,}, which makes it {stage.record.base_lr:g}"
            )
    return notes


def write_deploy_files(recipe: Recipe, custom: CustomData, out: Path, parents: Sequence[Path]) -> Path:
    """Write the files that ``Segmenter.load`` needs besides the weights: ``deploy.prototxt`` and ``card.json``.

    Args:
        recipe: the adapted recipe.
        custom: the custom data set.
        out: the folder that contains a folder for each training.
        parents: the weights files that the training starts from; the card records their SHA-256.

    Returns:
        The training's folder, ``out / recipe.name``. ``Segmenter.load`` loads it once the training has ended, or
        earlier with the weights of a snapshot.

    Raises:
        ReproductionError: If a file cannot be written.
    """
    assert recipe.record is not None
    model, colours = recipes.final_model_path(recipe.name, out), None
    if custom.colours is not None:
        colours = [colour for name, colour in custom.colours.items() if name != color_labels.VOID_NAME]
    source = {f"from {path.name}": hashes.hash_file(path) for path in parents}
    net_card = card.published_card(recipe.record, colours, side=custom.side, weights=model.name, source=source)
    model.parent.mkdir(parents=True, exist_ok=True)
    prototxt.dump(net_files.build_deploy(recipe.record), model.parent / "deploy.prototxt")
    card.write_card(best_weights.keep_naming_best(net_card, model.parent), model.parent / card.CARD_FILE)
    return model.parent
