"""``python -m tidemark`` is the ``tidemark`` command."""

from .cli import main

if __name__ == "__main__":
    main()
