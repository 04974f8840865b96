"""What follows from the options that describe a net of any prototxt: preprocessing, class names, output."""

from __future__ import annotations

import argparse
from pathlib import Path

from reproduction.commands.terminal import note
from reproduction.fcn.nets import registry
from reproduction.fcn.segment.any_net import AnyNet, NetOptions, load_any_net


def read_net_options(args: argparse.Namespace) -> NetOptions:
    """Return the options of ``add_net_options``."""
    return NetOptions(
        args.mean, args.scale or (), args.order, args.classes, args.labels_blob, args.size, dict(args.input_shape),
        args.dialect, args.legacy_crop,
    )  # fmt: skip


def is_prototxt(net: str) -> bool:
    """Return whether a ``NET`` argument is a file, perhaps a missing one, rather than the name of a net or a folder."""
    return net not in registry.NETS and (Path(net).is_file() or net.endswith(".prototxt"))


def require_weights(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit with 2 if the net is a prototxt and no weights are named, or if it is not and an option for one is given."""
    if is_prototxt(args.net) and args.weights is None:
        parser.error(f"{args.net} is a prototxt; name its weights with --weights FILE")
    if not is_prototxt(args.net) and read_net_options(args) != NetOptions():
        parser.error("--mean, --scale, --order, --classes, --labels-blob, --size, --input-shape, --dialect and"
                     " --legacy-crop are for a net of a prototxt: --net FILE.prototxt --weights FILE")  # fmt: skip


def has_net_options(args: argparse.Namespace) -> bool:
    """Return whether one of the options of ``add_net_options`` is given, not counting ``--legacy-crop``."""
    return read_net_options(args) != NetOptions(legacy_crop=args.legacy_crop)


def load_described_net(
    args: argparse.Namespace, device: str = "cpu", *, prototxt_path: Path | None = None, quiet: bool = False
) -> AnyNet:
    """Load a prototxt, that which ``args.net`` names if no path is given; print what was found in it unless ``quiet``.

    Raises:
        ReproductionError: If a file is missing, broken or of another net; see ``any_net.load_any_net``.
    """
    made = load_any_net(prototxt_path or args.net, args.weights, read_net_options(args), device=device)
    for sentence in made.notes if not quiet else ():
        note(f"note: {sentence}")
    return made
