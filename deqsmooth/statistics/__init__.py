"""Statistics: confidence bounds, looks and tests; numbers in, numbers out."""
