"""What the server makes of ensembles is what we say of them."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest

from pipeline.ensemble_edges import edge_problems
from pipeline.flows.servers import Servers
from pipeline.testing.ensemble_cases import CASES, steps

SETTLED_SECONDS = 6.0
"""Several polls; what was not loaded by then was refused."""

STEP = """
class TritonPythonModel:
    def execute(self, requests):
        return []
"""


@pytest.mark.timeout(120)
def test_the_server_serves_exactly_the_ensembles_that_fit(servers: Servers) -> None:
    prefix = f"h-{uuid.uuid4().hex[:8]}-"
    models = steps(prefix)
    ensembles = {
        f"{prefix}{name}": case.config(name, prefix)
        for name, case in CASES.items()
        if not case.is_endless
    }
    store, triton = servers.repository, servers.replicas[0]
    try:
        for model, config in (models | ensembles).items():
            name = "model.py" if model in models else "manifest.json"
            store.put(f"{model}/1/{name}", STEP.encode())
            store.put(f"{model}/config.pbtxt", config.encode())
        fitting = {m for m, config in ensembles.items() if not edge_problems(config, models)}
        deadline = time.monotonic() + 60
        while not all(triton.is_ready(m, 1) for m in fitting | models.keys()):
            assert time.monotonic() < deadline, [m for m in fitting if not triton.is_ready(m, 1)]
            time.sleep(0.5)
        time.sleep(SETTLED_SECONDS)
        assert {m for m in ensembles if triton.is_ready(m, 1)} == fitting
        assert 5 < len(fitting) < len(ensembles)
    finally:
        keys = [o.key for o in store.list_folder("") if o.key.startswith(prefix)]
        store.delete([key for key in keys if Path(key).parts[0] in ensembles])
        store.delete([key for key in keys if Path(key).parts[0] in models])
