"""Randomized smoothing: noisy copies of an image, their votes, and the certificate that follows."""
