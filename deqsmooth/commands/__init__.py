"""The commands, one file each: its flags, what it runs, and what it shows.

A command file imports JAX and the rooms that use it inside `run`, after the flags were parsed.
"""
