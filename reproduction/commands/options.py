"""The options that several commands have, what parses their values, and what follows from them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reproduction.caffe import tested_devices
from reproduction.commands.terminal import note
from reproduction.fast import precisions
from reproduction.fcn import folders

if TYPE_CHECKING:
    from reproduction.caffe.net.net import Net
    from reproduction.fcn.scoring.evaluate import Scorer


def positive(text: str) -> int:
    """Parse an integer from 1 on, as an argparse type.

    Raises:
        ArgumentTypeError: If the text is not an integer of 1 or more.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


def split_names(text: str) -> list[str]:
    """Split names at commas, as an argparse type."""
    return [name.strip() for name in text.split(",")]


def split_counts(text: str) -> list[int]:
    """Parse integers from 1 on, separated by commas, as an argparse type.

    Raises:
        ArgumentTypeError: If one of them is not an integer of 1 or more.
    """
    return [positive(part.strip()) for part in text.split(",")]


def parse_size(text: str) -> tuple[int, int]:
    """Parse a size such as ``224x256``, height first; one number stands for both. An argparse type.

    Raises:
        ArgumentTypeError: If the text is not such a size.
    """
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and 0 < int(part) < 1 << 15 for part in parts):
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 224x224")
    return int(parts[0]), int(parts[-1])


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Parse the shape of an input such as ``data=1,3,227,227`` or ``data=1x3x227x227``. An argparse type.

    Raises:
        ArgumentTypeError: If the text is not such a shape.
    """
    name, _, sizes = text.partition("=")
    parts = sizes.replace("x", ",").split(",")
    if not name or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text} is not a shape such as data=1,3,227,227")
    return name, tuple(map(int, parts))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in split_names(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not one or more numbers") from None


def _mean(text: str) -> tuple[float, ...] | Path:
    try:
        return _numbers(text)
    except argparse.ArgumentTypeError:
        return Path(text)


class _MaxPixels(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        from reproduction.caffe.formats import image_files

        image_files.set_max_pixels(values)


def folder_option(what: str, default: Path) -> dict[str, Any]:
    """Return the settings of an option for a folder, whose help shows the default; for ``add_argument``."""
    shown = str(default).replace("%", "%%")
    return {"type": Path, "default": default, "metavar": "DIR", "help": f"{what}; default: {shown}"}


def shared_options() -> dict[str, dict[str, Any]]:
    """Return the options that several commands have: the settings for ``add_argument``, by flag.

    Of these, ``--engine`` does not offer ``auto``, since results would depend on times.
    """
    untested = tested_devices.untested_note()
    described = "; ".join(f"{name}: {text}" for name, text in precisions.DESCRIPTIONS.items())
    return {
        "--data": folder_option("the data root", folders.find_data_root()),
        "--device": {
            "default": "cpu", "metavar": "DEVICE",
            "help": "cpu (default) or cuda" + (f" ({untested})" if untested else ""),
        },
        "--dialect": {"default": "", "metavar": "NAME", "help": "the fork of Caffe, if the files do not show it"},
        "--engine": {
            "choices": precisions.ENGINES[1:], "default": "torch",
            "help": "what computes a net that segments, on the CPU; default: torch. The others need the extra fast."
            " They are faster for many nets and for bf16 if many images have the same size, since each size takes up to"
            " seconds to prepare",
        },
        "--json": {"action": "store_true", "help": "print the result as JSON"},
        "--legacy-crop": {
            "action": "store_true",
            "help": "give Crop layers without an offset that of the Caffe of 2015, which aligns their bottoms; Caffe"
            " 1.0 takes 0",
        },
        "--limit": {"type": positive, "metavar": "N", "help": "score the first N images only"},
        "--manifest": {"type": Path, "help": "another weights/manifest.json (also REPRODUCTION_MANIFEST)"},
        "--max-pixels": {
            "type": positive, "action": _MaxPixels, "default": argparse.SUPPRESS, "metavar": "N",
            "help": "open images of up to N pixels; default: 100 million, which may take 1.6 GB",
        },
        "--mirror": {"metavar": "URL|DIR|hf:OWNER/NAME", "help": "tried first (also REPRODUCTION_MIRROR)"},
        "--precision": {
            "choices": precisions.DESCRIPTIONS, "default": "exact",
            "help": f"default: exact. {described}. If the device does not support it, the next more exact one is used",
        },
        "--report": {"type": Path, "default": Path("reports"), "metavar": "DIR", "help": "default: reports/"},
        "--weights": folder_option("the weights folder", folders.find_weights_folder()),
    }  # fmt: skip


def add_shared(parser: argparse._ActionsContainer, *flags: str) -> None:
    """Add some of ``shared_options`` to a parser or a group of one."""
    shared = shared_options()
    for flag in flags:
        parser.add_argument(flag, **shared[flag])


def add_net_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe a net of any prototxt."""
    group = parser.add_argument_group(
        "a net of any prototxt", "what is not given is found in the prototxt where it says it, and printed"
    )
    add = group.add_argument
    add("--mean", type=_mean, metavar="B,G,R|FILE", help="the mean of each channel, or a mean.binaryproto")
    add("--scale", type=_numbers, metavar="X", help="a factor for values minus the mean, or one for each channel")
    add("--order", choices=("BGR", "RGB"), default="", help="the order of the channels; default: BGR")
    add("--classes", type=Path, metavar="FILE", help="the class names, one in each line")
    add("--labels-blob", default="", metavar="NAME", help="the blob with the scores or labels; default: the output")
    add("--size", type=parse_size, metavar="HxW", help="resize images; default: only if the net takes one size")
    add(
        "--input-shape", type=parse_shape, action="append", default=[], metavar="NAME=N,C,H,W",
        help="for a net that reads its own data or declares no input; may be repeated",
    )  # fmt: skip
    add_shared(group, "--dialect")
    add_shared(parser, "--legacy-crop")


def precision(args: argparse.Namespace) -> str:
    """Return the precision that the chosen device computes in, and store it in ``args``.

    Prints a note, once, if it is not the precision that the user chose.
    """
    if args.precision != "plain":
        device = args.device.split(":")[0]
        used = precisions.supported_precision(args.precision, device)
        if used != args.precision:
            note(f"note: this {device} does not compute in {args.precision}; {used} is used.")
        args.precision = used
    return str(args.precision)


def compiled(net: Net, precision: str, *, steady: bool = False, engine: str = "torch") -> Scorer:
    """Return the net compiled, which frees its weights, or the net itself if ``precision`` is ``plain``.

    Args:
        net: The net.
        precision: The precision.
        steady: Whether the results for an image must not depend on the images before it; see ``compiler.compile``.
        engine: What computes on the CPU; see ``compiler.compile``. Weights are freed only for ``torch``.

    Raises:
        ReproductionError: If the engine is not installed.
    """
    if precision == "plain":
        return net
    from reproduction.fast import compiler

    return compiler.compile(net, precision, discard=engine == "torch", steady=steady, engine=engine)
