"""Nets for custom images and classes: a published net with another number of classes, trained by its recipe.

``adapt_recipe`` returns the training; ``write_deploy_files`` writes the files that ``Segmenter.load`` needs besides the
weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from reproduction.caffe.errors import DataError, ReproductionError, StrPath
from reproduction.caffe.formats import image_files, prototxt
from reproduction.caffe.schema import NetParameter, SolverParameter
from reproduction.fcn.datasets import PublishedNet, voc
from reproduction.fcn.datasets.custom import color_labels, folder
from reproduction.fcn.datasets.custom.color_labels import Reading
from reproduction.fcn.datasets.custom.folder import Folder
from reproduction.fcn.datasets.spec import DataLayer
from reproduction.fcn.images import decode
from reproduction.fcn.nets import published_nets, registry, surgery
from reproduction.fcn.segment import card
from reproduction.fcn.train import recipes
from reproduction.fcn.train.recipes import Recipe

#: The number of pixels that the published learning rates were chosen for: VOC's images have 500 x 375.
PUBLISHED_PIXELS = 500 * 375

#: The longer side of VOC's images in pixels, the scale at which the published nets recognize objects.
SIDE = 500

_KEYS = ("seed", "split", "mean", "classes", "palette", "side")


@dataclass(frozen=True)
class CustomData:
    """The properties of a custom data set that its net and training depend on.

    Attributes:
        root: the folder, see ``datasets.custom.folder``.
        classes: the class names; index = label.
        palette: how labels are read, see ``color_labels.Reading``.
        side: the longer side in pixels to which larger images are shrunk; 0 does not shrink them.
        shrunk: the number of training images that are shrunk.
        pixels: the mean number of pixels of a training image, after shrinking.
        learnt: the number of training images.
        validated: the number of validation images.
        alone: the number of images without a label, which are left out.
    """

    root: Path
    classes: tuple[str, ...]
    palette: Reading
    side: int
    shrunk: int
    pixels: int
    learnt: int
    validated: int
    alone: int


def is_custom_folder(root: StrPath) -> bool:
    """Return True if a folder is meant as a custom data set, not as a data root or the tree of a published set.

    It then has classes.txt, palette.txt, images/ or labels/, or has images and no folders directly in it. An
    incomplete custom data set also returns True, so that ``inspect_folder`` raises an error instead of another data
    set being fetched or drawn.
    """
    place = Path(root)
    if not place.is_dir():
        return False
    names = {path.name for path in place.iterdir()}  # exact case on any file system: SIFT Flow has Images/
    return bool(names & {"classes.txt", "palette.txt", "images", "labels"}) or folder.is_album(place)


def inspect_folder(
    root: StrPath, classes: StrPath | None = None, palette: StrPath | None = None, side: int = SIDE
) -> CustomData:
    """Inspect a custom data set: its splits, its classes and the sizes of its images, without decoding them.

    Args:
        root: the folder.
        classes: a file of class names; None selects the folder's classes.txt.
        palette: a file of colours, ``voc`` or ``indices``; None selects the folder's palette.txt.
        side: the longer side in pixels to which larger images are shrunk; 0 does not shrink them.

    Raises:
        DataError: If the folder or its class names are missing, there are fewer than two classes, no training image
            exists, or a file is broken.
    """
    files, side = folder.list_files(root), folder.check_side_param(side)
    names, colours = folder.find_classes(root, classes, palette)
    if names is None:
        want = "--classes FILE or classes.txt, one name a line, the first for label 0"
        raise DataError("nothing says the names of the classes", path=root, want=want)
    if len(names) < 2:
        raise DataError("one class is nothing to tell apart", path=root, got=names[0], want="two classes or more")
    ids = files.ids("train")
    learnt = [files.images[image_id] for image_id in ids if image_id in files.images]
    if not learnt:
        raise DataError("none of the pictures to learn from is there", path=root)
    sizes = [_size(path) for path in learnt]
    fitted = [decode.fit_size(size, side) for size in sizes]
    pixels = sum(height * width for height, width in fitted) // len(fitted)
    shrunk = sum(size != small for size, small in zip(sizes, fitted, strict=True))
    alone = len(files.images.keys() - files.labels.keys())
    return CustomData(files.root, names, colours, side, shrunk, pixels, len(ids), len(files.ids("val")), alone)


def _size(path: Path) -> tuple[int, int]:
    with image_files.open_image(path) as image:
        return image.height, image.width


def adapt_published(base: PublishedNet, known: CustomData) -> PublishedNet:
    """Return a net that is adapted to the classes, label reader and learning rate of a custom data set.

    Args:
        base: a net with one colour input and one labelling.
        known: the custom data set.

    Raises:
        ReproductionError: If the net has other inputs or several labellings.
    """
    if base.inputs != {"data": "color"} or len(base.heads) != 1:
        fit = [name for name, each in registry.NETS.items() if each.inputs == {"data": "color"}]
        names = ", ".join(name for name in fit if len(registry.NETS[name].heads) == 1)
        raise ReproductionError(f"{base.name} cannot learn from pictures and one labelling", want=f"one of {names}")
    spec = replace(
        base.dataset,
        name=Folder.name,
        classes={"label": known.classes},
        means=voc.SPEC.means,
        datasets=(Folder,),
        module="folder_layers",
        train=DataLayer("train", "train", Folder, _KEYS),
        test=DataLayer("val", "val", Folder, _KEYS),
        folders={},
        test_iter=known.validated,
        params={
            "classes": list(known.classes),
            "palette": dict(known.palette) if isinstance(known.palette, Mapping) else known.palette,
            "side": known.side,
        },
    )
    return replace(base, dataset=spec, base_lr=scale_base_lr(base, known), caffemodel=None)


def scale_base_lr(base: PublishedNet, known: CustomData) -> float:
    """Return the published learning rate, scaled to the mean size of the training images.

    The loss of most nets is a sum over pixels, so that twice as many pixels double the gradient. The rate is unchanged
    if the loss is a mean, or if the solver is Adam (Mini-VOC), whose steps do not depend on the scale of the loss.
    """
    if base.normalize or base.solver.get("type") == "Adam":
        return base.base_lr
    return float(f"{base.base_lr * float(Fraction(PUBLISHED_PIXELS, known.pixels)):.3g}")


def adapt_recipe(name: str, known: CustomData) -> Recipe:
    """Return the training of a net of the catalogue on a custom data set.

    Raises:
        ReproductionError: If there is no such net, it is a classifier of whole images, or it has other inputs or
            several labellings.
    """
    base = recipes.find_recipe(name)
    if base.row is None:
        raise ReproductionError(f"{name} tells apart whole pictures, not their pixels", remedy="Name another net.")
    mine = adapt_published(base.row, known)
    files = published_nets.build_files(mine)
    train, test, solver = files["train.prototxt"], files["val.prototxt"], files["solver.prototxt"]
    assert isinstance(train, NetParameter)
    assert isinstance(test, NetParameter)
    assert isinstance(solver, SolverParameter)
    return replace(base, solver=solver, train=train, test=test, row=mine, dataset="")


def describe_changes(chain: Sequence[Recipe], known: CustomData) -> list[str]:
    """Return sentences that describe the data and how the published recipe was adapted."""
    said = [
        f"{known.root}: {len(known.classes)} classes: {', '.join(known.classes)}",
        f"{known.learnt} pictures to learn from, {known.validated} to validate on"
        + (f"; {known.alone} without a label are left out" if known.alone else ""),
    ]
    if known.shrunk:
        said.append(
            f"{known.shrunk} pictures are longer than {known.side} pixels, and are shrunk to them with their labels;"
            " --side 0 leaves them as they are, and takes more memory and time"
        )
    for each in chain:
        published = registry.NETS[each.name].base_lr
        assert each.row is not None
        fresh = ", ".join(surgery.find_new_layers(each.row))
        said.append(f"{each.name}: {fresh} and the upsamplings are made anew, for {len(known.classes)} classes")
        if each.row.base_lr != published:
            said.append(
                f"{each.name}: base_lr {published:g} is for pictures of {PUBLISHED_PIXELS:,} pixels; these have"
                f" {known.pixels:,}, so that it is {each.row.base_lr:g}"
            )
    return said


def write_deploy_files(trained: Recipe, known: CustomData, out: Path, parents: Sequence[Path]) -> Path:
    """Write the files that inference needs besides the weights: ``deploy.prototxt`` and ``card.json``.

    Args:
        trained: the training.
        known: the custom data set.
        out: the folder that contains each training's folder.
        parents: the weights files that the training starts from; the card records their sha256.

    Returns:
        The training's folder. ``Segmenter.load`` loads it once the training has ended, or earlier with the weights of a
        snapshot.

    Raises:
        ReproductionError: If a file cannot be written.
    """
    assert trained.row is not None
    model, colours = recipes.final_model_path(trained.name, out), None
    if isinstance(known.palette, Mapping):
        colours = [colour for name, colour in known.palette.items() if name != color_labels.VOID_NAME]
    source = {f"from {path.name}": card.sha256(path) for path in parents}
    about = card.custom_card(trained.name, known.classes, colours, side=known.side, weights=model.name, source=source)
    model.parent.mkdir(parents=True, exist_ok=True)
    prototxt.dump(published_nets.build_deploy(trained.row), model.parent / "deploy.prototxt")
    card.write_card(about, model.parent / card.CARD_FILE)
    return model.parent
