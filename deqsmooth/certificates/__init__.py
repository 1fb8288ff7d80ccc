"""What is certified, its record in a file, and what can be said from files alone; without JAX."""
