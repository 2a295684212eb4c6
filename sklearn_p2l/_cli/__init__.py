"""What the command line does: arguments, and a command that returns lines to print."""

from sklearn_p2l._cli._arguments import read_arguments

__all__ = ["read_arguments"]
