"""Describe files of Caffe: age, fork, layers, inputs, size, whether they run here, and what does not run and why.

    fcn info deploy.prototxt                    one net
    fcn info voc-fcn8s --figure voc-fcn8s.svg   one net of this project, drawn with its loss; docs/systems.md
    fcn info old.caffemodel                     its layers, and the number of its parameters
    fcn info collection/                        all prototxts and caffemodels below a folder: a table, and the reasons
    fcn info collection/ --json > census.json

No weights are copied and no values are computed. GMAC are the multiplications of one image, in billions. A net runs if
it can be built in phase TEST; of a net that reads its own data, the shapes of the inputs are guessed. The receptive
field is the number of pixels along an axis on which a value depends, before the first upsampling.

Exit code 1: a file cannot be read, or its net cannot run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from reproduction import figure
from reproduction.caffe.errors import NetError, ReproductionError, did_you_mean
from reproduction.caffe.formats import file_kinds, files, prototxt
from reproduction.caffe.net.net_info import NetInfo, build_without_values, count_reasons, inspect_file, list_files
from reproduction.commands.parsers import make_parser
from reproduction.commands.terminal import note, say, say_json
from reproduction.fcn.nets import registry
from reproduction.fcn.nets.receptive_field import NetFigures, compute_net_figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is known of the files; return 1 if one of them cannot be read or run, else 0."""
    args = make_parser("info").parse_args(arguments)
    paths = [path for name in args.files for path in _find_files(name)]
    if not paths:
        raise ReproductionError("there is no prototxt and no caffemodel in this folder", place=str(args.files[0]))
    if args.figure is not None:
        if len(args.files) > 1 or (Path(args.files[0]).is_dir() and not _is_name(args.files[0])):
            raise ReproductionError("--figure draws one net", got=f"{len(paths)} files", remedy="Name one prototxt.")
        if args.figure.suffix.lower() != ".svg":
            raise ReproductionError("--figure writes SVG", got=str(args.figure), want="a name that ends with .svg")
        _write_figure(args.files[0], args.figure, args)
    infos = [inspect_file(path, args.dialect) for path in paths]
    if args.json:
        say_json([asdict(info) for info in infos])
    elif len(infos) == 1 and not Path(args.files[0]).is_dir():
        say(*format_info(infos[0], _find_figures(paths[0], args.dialect) if infos[0].runs else None))
    else:
        say(*format_table(infos), "", *format_summary(infos))
    return 1 if any(info.error for info in infos) else 0


def _list_names() -> list[str]:
    """Return the names of the nets of this project; they take precedence over folders."""
    return sorted(path.name for path in registry.PROTOTXT.iterdir() if path.is_dir())


def _is_name(name: str) -> bool:
    return name in _list_names()


def _find_files(name: str) -> list[Path]:
    """Return the files of an argument: the prototxt of a net of this project, a file, or those of a folder.

    Raises:
        ReproductionError: If there is no such file, and it may be the name of a net; the remedy lists them.
    """
    if _is_name(name):
        return [registry.PROTOTXT / name / "deploy.prototxt"]
    if name == Path(name).stem and not Path(name).exists():
        remedy = did_you_mean(name, _list_names()) or f"The nets are {', '.join(_list_names())}."
        raise ReproductionError("there is no such file, and no net of this name", place=name, remedy=remedy)
    return list_files(name)


def _write_figure(name: str, target: Path, args: argparse.Namespace) -> None:
    """Draw a net to an SVG file: of a net of this project its training net, which has the loss.

    Raises:
        ReproductionError: If the file is not a prototxt, or Caffe would reject its net.
    """
    if name in registry.NETS:
        net_param, inputs = figure.load_training_net(registry.NETS[name], args.side)
        text = figure.draw_net(net_param, inputs=inputs)
    else:
        (path,) = _find_files(name)
        net_param, _ = prototxt.load_net(path, dialect=args.dialect)
        net_param.name = net_param.name or (name if _is_name(name) else path.stem)
        text = figure.draw_net(net_param, args.side or figure.SIDE)
    files.write_text(target, text)
    note(f"wrote {target}")


def _find_figures(path: Path, dialect: str) -> NetFigures | None:
    """Return the numbers of Table 1 of a net that runs; None if a layer has no place in the image, as InnerProduct."""
    try:
        return compute_net_figures(build_without_values(prototxt.load_net(path, dialect=dialect)[0])[0])
    except NetError:
        return None


def format_info(info: NetInfo, figures: NetFigures | None = None) -> list[str]:
    """Format what is known of one file as lines of text, and the numbers of Table 1 if there are any."""
    named = f"{info.name}, {info.kind}" if info.name else info.kind or "not recognized"
    lines = [f"{info.file}: {named}"]
    if info.age:
        whose = " and ".join(["BVLC Caffe", *info.forks])
        lines.append(f"  form      {info.age}, layers and fields of {whose}")
    for title, blobs in (("inputs", info.inputs), ("outputs", info.outputs)):
        if blobs:
            lines.append(f"  {title:<8}  {', '.join(f'{name} {shape}' for name, shape in blobs.items())}")
    if info.parameters:
        size = f"  size      {info.parameters:,} parameters"
        lines.append(size + (f", {info.products / 1e9:.3g} GMAC an image" if info.products else ""))
    if figures is not None:
        lines.append(
            f"  table 1   {figures.learned:,} learned parameters, {figures.depth} convolutions on the longest path,"
            f" receptive field {figures.receptive_field} px, stride {figures.max_stride}"
        )
    if info.layers:
        counted = ", ".join(f"{count} {type_}" for type_, count in info.layers.items())
        lines.append(f"  layers    {counted}")
    if info.runs:
        lines.append("  forward   runs")
        lines.append("  backward  runs" + _list("; no gradient passes through ", info.without_gradient))
        lines.append("  compiled  runs" + _list("; unchanged: ", info.as_they_are))
        lines.append("  ONNX      all layers" + _list(" except ", info.without_onnx))
    lines += [f"  note      {note}" for note in info.notes]
    if info.error:
        lines.append(f"  {'does not run' if info.loads else 'cannot be read'}: {info.error}")
    return lines


def _list(before: str, types: Sequence[str]) -> str:
    return before + ", ".join(types) if types else ""


def format_table(infos: Sequence[NetInfo]) -> list[str]:
    """Format many files as a table, one in each line."""
    rows = [("file", "form", "layers", "parameters", "GMAC", "runs", "ONNX")]
    for info in infos:
        known = info.runs
        rows.append((
            info.file, info.age or "?", str(sum(info.layers.values())) if info.layers else "",
            f"{info.parameters:,}" if info.parameters else "", f"{info.products / 1e9:.3g}" if info.products else "",
            "yes" if known else "" if info.loads and info.kind != file_kinds.NET else "no",
            "" if not known else "no" if info.without_onnx else "yes",
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def format_summary(infos: Sequence[NetInfo]) -> list[str]:
    """Format how many files can be read and run, and the reasons why others cannot."""
    nets = [info for info in infos if info.kind == file_kinds.NET]
    others = [info for info in infos if info.kind != file_kinds.NET]
    read, run = sum(info.loads for info in nets), sum(info.runs for info in nets)
    exported = sum(info.runs and not info.without_onnx for info in nets)
    return [
        f"{len(nets)} nets: {read} can be read, {run} run, {exported} with an ONNX form of all layers",
        *([f"{len(others)} other files: {sum(i.loads for i in others)} can be read"] if others else []),
        *(f"{count:>5}  {reason}" for count, reason in count_reasons(infos)),
    ]
