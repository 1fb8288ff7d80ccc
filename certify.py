"""Certifies a deep equilibrium model on a data set; `python certify.py --help` lists the settings."""

import sys

from deqsmooth.commands import certify

if __name__ == "__main__":
    sys.exit(certify.main())
