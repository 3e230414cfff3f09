"""The mirror: a local copy of the model repository that only ever moves forward.

A Triton that polls S3 unloads every model when one listing fails. With a mirror beside it, Triton
polls a local folder, and an outage of S3 is no outage: the mirror changes the folder only when it
has the next state completely, verified byte by byte against the manifests, in the publisher's
order.

::

    DIRECTORY/
    ├── repository/   what Triton is pointed at, and nothing else
    ├── staging/      downloads, on the same file system, so that a rename puts them in place
    └── state/        what was taken over from where; can be rebuilt, except for the lock

Guarantees, whatever the store answers and whenever the mirror is killed: every ``config.pbtxt`` in
``repository/`` names version folders that are complete and as their manifests say; it is one that
was committed, and it goes back to an older one only because that was committed again. What is
served is deleted only when the store says several times over that the whole model is gone.

One job: :mod:`~pipeline.mirror.follow` compares one listing with what is local and starts a job per
model that differs; :mod:`~pipeline.mirror.plan` decides what the model shall be, or refuses;
:mod:`~pipeline.mirror.advance` downloads and verifies; :mod:`~pipeline.mirror.local` puts it in
place.
"""

from __future__ import annotations
