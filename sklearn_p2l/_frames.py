"""pandas, which only tables of results need."""


def import_pandas():
    """Import pandas, or say how to get it."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            'tables of results need pandas; pip install "sklearn-p2l[pandas]".'
        ) from error
    return pd
