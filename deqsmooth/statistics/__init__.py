"""Bounds on probabilities and when a run may stop: numbers in, numbers out."""
