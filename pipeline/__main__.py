"""``python -m pipeline`` is the ``tritonpipe`` command."""

from pipeline.cli import main

main()
