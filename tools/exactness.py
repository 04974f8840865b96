#!/usr/bin/env python3
"""Measure the error of every layer, net and old model relative to Caffe, and write the figures for the README.

Takes about two minutes on two cores. Every error must be below the tolerances of tests/golden/README.md. The README's
figures require a CPU on which BLAS adds in the order of Caffe's (x86-64 with AVX-512). On other CPUs, --check skips the
checks that depend on this order, prints "not checked", and exits with 3. Exit code 1: an error is above its tolerance.

    tools/exactness.py                  measure, print, and write tests/golden/exactness.json
    tools/exactness.py --check          measure and print only
    tools/exactness.py --json > figures.json
    tools/exactness.py --device cuda    only the nets, on another device; records that it was tested
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import date
from typing import Any

from common import ROOT, run

import numpy as np
import torch

from reproduction.caffe import devices, tested_devices
from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.layers.exact import blas
from reproduction.commands.options import add_shared
from reproduction.commands.start import NOT_CHECKED

sys.path.insert(0, str(ROOT))  # the golden files and their reader belong to the tests
from tests.helpers import parity
from tests.helpers.paths import GOLDEN


def main() -> int:
    """Measure all golden cases; return the exit code, see above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="do not write the figures")
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    add_shared(parser, "--device")
    args = parser.parse_args()
    if args.device != "cpu":
        return check_on_device(args.device, record=not args.check)
    is_ordered = blas.adds_in_order()
    if not is_ordered and not args.check:
        raise ReproductionError(
            "the BLAS of this CPU does not add in the order of Caffe's, as the README's figures want it",
            remedy="Measure with --check, or on x86-64 with AVX-512.",
        )
    found = parity.measure_all(is_ordered=is_ordered)
    for name, net in found.nets.items() if not args.json else ():
        backward = f"{net.backward:.1e}" if is_ordered else "not checked"
        print(f"{name:24} forward {net.forward:.1e}  backward {backward}  {net.same} of {net.values} values the same")
    figures = json.dumps(summarize(found), indent=2)
    print(figures)
    screen = sys.stderr if args.json else sys.stdout
    failures = find_failures(found, is_ordered=is_ordered)
    print(f"beyond the tolerance: {', '.join(failures) or 'none'}", file=screen)
    if not is_ordered:
        reason = "because this CPU's BLAS adds in another order"
        print(f"not checked: gradients, and the order of Caffe's BLAS bit for bit, {reason}.", file=screen)
    if not args.check and not failures:
        (GOLDEN / "exactness.json").write_text(figures + "\n")
    return 1 if failures else 0 if is_ordered else NOT_CHECKED


def summarize(found: parity.Parities) -> dict[str, Any]:
    """Return the figures of tests/golden/exactness.json, which the README shows."""
    nets, in_torch_order = found.nets.values(), found.nets_in_torch_order.values()
    return {
        "layers": {
            "cases": len(found.layers), "worst": max(found.layers.values()), "tolerance": parity.LAYER_TOLERANCE
        },
        "nets": {
            "cases": len(nets),
            "forward": max(net.forward for net in nets),
            "forward_tolerance": parity.FORWARD_TOLERANCE,
            "backward": max(net.backward for net in nets),
            "backward_tolerance": parity.BACKWARD_TOLERANCE,
            "values": sum(net.values for net in nets),
            "same": sum(net.same for net in nets),
            "torch_forward": max(net.forward for net in in_torch_order),
            "labels_off": sum(net.labels_off for net in (*nets, *in_torch_order)),
        },
        "legacy": {
            "cases": len(found.legacy), "worst": max(found.legacy.values()), "tolerance": parity.LAYER_TOLERANCE
        },
        "measured": {
            "date": date.today().isoformat(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        },
    }  # fmt: skip


def find_failures(found: parity.Parities, *, is_ordered: bool) -> list[str]:
    """Return the names of the cases whose errors exceed the tolerances."""
    errors = found.layers | found.legacy
    nets = found.nets | {f"{name}, torch's order": net for name, net in found.nets_in_torch_order.items()}
    failures = [case for case, error in errors.items() if not error <= parity.LAYER_TOLERANCE]
    failures += [name for name, net in nets.items() if net.off or net.labels_off]
    if is_ordered:
        failures += [f"{name}, bit for bit" for name, net in found.nets.items() if net.same != net.values]
    return failures


def check_on_device(device: str, *, record: bool) -> int:
    """Compare the nets on a device with Caffe, and record a CUDA device that matches; return 1 if a net does not.

    The tolerance of gradients is ``parity.KINK_TOLERANCE``, because the order of additions depends on the device.
    """
    place = devices.select_device(device)
    nets = {path.stem: parity.net_parity(path, device=device) for path in parity.NETS}
    for name, net in nets.items():
        print(f"{name:24} forward {net.forward:.1e}  backward {net.backward:.1e}  {net.labels_off} labels off")
    bad = [
        name
        for name, net in nets.items()
        if net.labels_off
        or not net.forward <= parity.FORWARD_TOLERANCE
        or not net.backward <= parity.KINK_TOLERANCE
        or any("nan" in each or "inf" in each for each in net.off)
    ]
    print(f"beyond the tolerance: {', '.join(bad) or 'none'}")
    if record and not bad and place.type == "cuda":
        found = {
            "date": date.today().isoformat(),
            "device": torch.cuda.get_device_name(place),
            "torch": torch.__version__,
            "forward": max(net.forward for net in nets.values()),
            "backward": max(net.backward for net in nets.values()),
        }
        tested_devices.RECORD.write_text(json.dumps(found, indent=1) + "\n")
        print(f"recorded in {tested_devices.RECORD.relative_to(ROOT)}")
    return bool(bad)


if __name__ == "__main__":
    run(main)
