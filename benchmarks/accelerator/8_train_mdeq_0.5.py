"""Trains a second family at sigma 0.5: a multiscale DEQ as small as that of the paper."""

import training

if __name__ == "__main__":
    training.main(0.5, "mdeq-small-gpu")
