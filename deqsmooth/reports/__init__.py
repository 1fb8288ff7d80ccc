"""Tables, figures and pages of files of certificates; without JAX."""
