"""Trains the contraction and its start at sigma 0.25."""

import training

if __name__ == "__main__":
    training.main(0.25)
