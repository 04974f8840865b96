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
from collections.abc import Mapping
from datetime import date

from common import NOT_CHECKED, ROOT, add_device, run

import numpy as np
import torch

from reproduction.caffe import devices, tested_devices
from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.layers.exact import blas

sys.path.insert(0, str(ROOT))  # the golden files and their reader belong to the tests
from tests.helpers import parity
from tests.helpers.paths import GOLDEN


def main() -> int:
    """Measure all golden cases; return the exit code, see above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="do not write the figures")
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    add_device(parser)
    args = parser.parse_args()
    if args.device != "cpu":
        return on_device(args.device, record=not args.check)
    ordered = blas.adds_in_order()
    if not ordered and not args.check:
        raise ReproductionError(
            "the BLAS of this CPU does not add in the order of Caffe's, as the README's figures want it",
            remedy="Measure with --check, or on x86-64 with AVX-512.",
        )
    layers = {case: parity.layer_parity(case) for case in parity.layer_cases()}
    nets = {
        path.stem.rpartition("_")[0]: parity.net_parity(path, blas_order=ordered, backward=ordered)
        for path in parity.NETS
    }
    plain = {path.stem.rpartition("_")[0]: parity.net_parity(path, backward=False) for path in parity.NETS}
    legacy = {path.stem: parity.legacy_parity(path) for path in parity.LEGACY}
    figures = {
        "layers": {"cases": len(layers), "worst": max(layers.values()), "tolerance": parity.LAYER_TOLERANCE},
        "nets": {
            "cases": len(nets),
            "forward": max(net.forward for net in nets.values()),
            "forward_tolerance": parity.FORWARD_TOLERANCE,
            "backward": max(net.backward for net in nets.values()),
            "backward_tolerance": parity.BACKWARD_TOLERANCE,
            "values": sum(net.values for net in nets.values()),
            "same": sum(net.same for net in nets.values()),
            "torch_forward": max(net.forward for net in plain.values()),
            "labels_off": sum(net.labels_off for net in (*nets.values(), *plain.values())),
        },
        "legacy": {"cases": len(legacy), "worst": max(legacy.values()), "tolerance": parity.LAYER_TOLERANCE},
        "measured": {
            "date": date.today().isoformat(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        },
    }
    for name, net in nets.items() if not args.json else ():
        backward = f"{net.backward:.1e}" if ordered else "not checked"
        print(f"{name:24} forward {net.forward:.1e}  backward {backward}  {net.same} of {net.values} values the same")
    print(json.dumps(figures, indent=2))
    screen = sys.stderr if args.json else sys.stdout
    bad = beyond(layers | legacy, {**nets, **{f"{name}, torch's order": net for name, net in plain.items()}})
    if ordered:
        bad += [f"{name}, bit for bit" for name, net in nets.items() if net.same != net.values]
    print(f"beyond the tolerance: {', '.join(bad) or 'none'}", file=screen)
    if not ordered:
        print("not checked: gradients, and the order of Caffe's BLAS bit for bit, which this CPU has not.", file=screen)
    if not args.check and not bad:
        (GOLDEN / "exactness.json").write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if bad else 0 if ordered else NOT_CHECKED


def beyond(errors: Mapping[str, float], nets: Mapping[str, parity.Parity]) -> list[str]:
    """Return the names of the cases whose errors exceed the tolerances."""
    bad = [case for case, error in errors.items() if not error <= parity.LAYER_TOLERANCE]
    return bad + [name for name, net in nets.items() if net.off or net.labels_off]


def on_device(device: str, *, record: bool) -> int:
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
