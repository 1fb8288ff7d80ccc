"""Training under Gaussian noise: of a model, and of the initial state (start) of its solves."""
