"""Trains a deep equilibrium model under Gaussian noise; `python train.py --help` lists the settings."""

import sys

from deqsmooth.commands import train

if __name__ == "__main__":
    sys.exit(train.main())
