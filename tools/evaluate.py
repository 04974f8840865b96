#!/usr/bin/env python3
"""The same as ``fcn evaluate``."""

from common import run_command

if __name__ == "__main__":
    run_command("evaluate")
