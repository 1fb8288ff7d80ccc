"""Trains a deep equilibrium model under Gaussian noise; `python train.py --help` lists the settings."""

import sys

from deqsmooth.commands import main

if __name__ == "__main__":
    sys.exit(main.train())
