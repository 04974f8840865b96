#!/usr/bin/env python3
"""Measure every layer, net and old model against what Caffe computed, and keep the figures for the README.

Takes about two minutes on two cores; expects every error below the tolerances of tests/golden/README.md. The README's
figures want a CPU whose BLAS adds in the order of Caffe's (x86-64 with AVX-512); on others, --check leaves out what
depends on it.

    tools/exactness.py            measure, print, and write tests/golden/exactness.json
    tools/exactness.py --check    measure and print only
    tools/exactness.py --json > figures.json
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import date

from common import ROOT, run

import numpy as np
import torch

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.layers import blas

sys.path.insert(0, str(ROOT))  # the golden files and their reader are the tests'
from tests import parity


def main() -> int:
    """Measure all golden cases; 1 when one is beyond its tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="do not write the figures")
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    args = parser.parse_args()
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
    plain = [parity.net_parity(path, backward=False) for path in parity.NETS]
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
            "torch_forward": max(net.forward for net in plain),
            "labels_off": sum(net.labels_off for net in (*nets.values(), *plain)),
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
        same = f"{net.same} of {net.values} values the same"
        print(f"{name:24} forward {net.forward:.1e}  backward {net.backward:.1e}  {same}")
    print(json.dumps(figures, indent=2))
    if not args.check:
        (parity.GOLDEN / "exactness.json").write_text(json.dumps(figures, indent=2) + "\n")
    bad = [case for case, error in (layers | legacy).items() if not error <= parity.LAYER_TOLERANCE]
    bad += [name for name, net in nets.items() if net.off or net.labels_off]
    print(f"beyond the tolerance: {', '.join(bad) or 'none'}", file=sys.stderr if args.json else sys.stdout)
    return bool(bad)


if __name__ == "__main__":
    run(main)
