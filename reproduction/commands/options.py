"""The parsers of the commands, the options that several of them have, and what follows from their values."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reproduction.caffe import tested_devices
from reproduction.commands.start import program_name
from reproduction.commands.terminal import note
from reproduction.fast import precisions
from reproduction.fcn import folders

if TYPE_CHECKING:
    from reproduction.caffe.net.net import Net
    from reproduction.fcn.scoring.evaluate import Scorer


def make_parser(command: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser without options.

    Args:
        command: The name of the sub-command, for the usage line.
        doc: The text of the help, which is shown as it is written.
    """
    return argparse.ArgumentParser(
        prog=program_name(command), description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


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


class _MaxPixels(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        from reproduction.caffe.formats import image_files

        image_files.set_max_pixels(values)


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--max-pixels``, which limits the size of the images that are opened."""
    parser.add_argument(
        "--max-pixels", type=positive, action=_MaxPixels, default=argparse.SUPPRESS, metavar="N",
        help="open images of up to N pixels; default: 100 million, which may take 1.6 GB",
    )  # fmt: skip


def add_data(parser: argparse.ArgumentParser, what: str = "the data root") -> None:
    """Add the option ``--data``: the folder to which data sets are downloaded or drawn."""
    _add_folder(parser, "--data", what, folders.find_data_root())


def add_weights_folder(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--weights`` of commands for several nets: the folder to which weights are downloaded."""
    _add_folder(parser, "--weights", "the weights folder", folders.find_weights_folder())


def _add_folder(parser: argparse.ArgumentParser, option: str, what: str, default: Path) -> None:
    shown = str(default).replace("%", "%%")
    parser.add_argument(option, type=Path, default=default, metavar="DIR", help=f"{what}; default: {shown}")


def add_device(parser: argparse.ArgumentParser, choices: Sequence[str] | None = None) -> None:
    """Add the option ``--device``; its help states whether CUDA was tested."""
    remark = tested_devices.untested_note()
    text = "cpu (default) or cuda" + (f" ({remark})" if remark else "")
    parser.add_argument("--device", default="cpu", choices=choices, metavar="DEVICE", help=text)


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--precision``, which selects how the net is computed."""
    described = "; ".join(f"{name}: {text}" for name, text in precisions.DESCRIPTIONS.items())
    parser.add_argument(
        "--precision", choices=precisions.DESCRIPTIONS, default="exact",
        help=f"default: exact. {described}. If the device does not support it, the next more exact one is used",
    )  # fmt: skip


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--engine``, which selects what computes the net on the CPU.

    ``auto`` is not offered, since results would depend on times.
    """
    parser.add_argument(
        "--engine", choices=precisions.ENGINES[1:], default="torch",
        help="what computes a net that segments, on the CPU; default: torch. The others need the extra fast. They are"
        " faster for many nets and for bf16 if many images have the same size, since each size takes up to seconds to"
        " prepare",
    )  # fmt: skip


def add_legacy_crop(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--legacy-crop``, for nets whose Crop layers rely on the Caffe of 2015."""
    parser.add_argument(
        "--legacy-crop", action="store_true",
        help="give Crop layers without an offset that of the Caffe of 2015, which aligns their bottoms; Caffe 1.0"
        " takes 0",
    )  # fmt: skip


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
