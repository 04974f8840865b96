#!/usr/bin/env python3
"""The same as ``fcn page``."""

from common import run_command

if __name__ == "__main__":
    run_command("page")
