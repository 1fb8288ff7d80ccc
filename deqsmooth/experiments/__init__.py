"""The paper's experiments as data, and the pages of their results; without JAX."""
