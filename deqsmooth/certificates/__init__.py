"""Certificates: the bound, its record in a file, verification, and statements from files alone; without JAX."""
