"""tritonpipe: from an alias in an MLflow registry to answers served by NVIDIA Triton.

Importing this package imports nothing else: every room below is loaded when it is used.
"""

__version__ = "0.1.0"
