"""Runs a packed Python model in a process of its own: in the gate, and in Triton's Python backend.

The modules here know the standard library and NumPy only, since they travel: every packed model
carries a copy of them in its ``model.zip``. There they are the package ``tritonpipe_runner``, and
are imported in two processes, neither of which has tritonpipe: Triton's Python backend
(``python_backend/model.py``, ``packed``, ``supervisor``), whose NumPy is the server's, and the
model's own interpreter (``main``, ``answers``), whose packages are the model's. Between the two
travel bytes only (``frames``), so that no library of the one ever meets one of the other.
"""
