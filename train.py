"""Trains a deep equilibrium model under Gaussian noise; `python train.py --help` lists the settings."""

import sys

from deqsmooth import cli

if __name__ == "__main__":
    sys.exit(cli.train())
