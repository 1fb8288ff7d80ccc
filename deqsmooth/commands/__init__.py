"""The commands, one module each, with its flags, its `main()` and its `run(arguments, console)`.

JAX, and the packages that use it, are imported inside `run`, after the flags have been parsed.
"""
