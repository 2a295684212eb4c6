"""The command line: ``p2l``, or ``python -m sklearn_p2l``."""

import contextlib
import os
import sys
import warnings

from sklearn_p2l._cli import read_arguments


def main(argv=None):
    """Run one command and return its exit code; bad input is told on stderr.

    A command returns the lines that it prints. Whatever else is printed while it works
    goes to stderr, and nothing goes to stdout until it has succeeded.
    """
    try:
        args = read_arguments(argv)
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = lambda message, *_: _tell("warning: ", message)
            lines = args.run(args)
        for line in lines:
            print(line)
        print(end="", flush=True)
        return 0
    except SystemExit as stop:  # argparse has said why
        return stop.code
    except KeyboardInterrupt:
        return _tell("interrupted", code=130)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, OSError) and error.filename and error.strerror:
            error = f"{error.filename}: {error.strerror}"
        return _tell("error: ", error)


def _tell(kind, text="", code=2):
    line = " ".join(f"p2l: {kind}{text}".splitlines())
    # Names come from strangers, too: none of them moves the cursor or rings a bell.
    shown = (c if c.isprintable() else repr(c)[1:-1] for c in line)
    print("".join(shown), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
