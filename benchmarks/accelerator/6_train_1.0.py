"""Trains the contraction and its start at sigma 1."""

import training

if __name__ == "__main__":
    training.main(1.0)
