"""Training under Gaussian noise: of a model, and of the start of its solves."""
