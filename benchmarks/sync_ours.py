"""What the sync benchmark runs for us: bring a folder into a store, only what is not there."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.stores import open_store
from pipeline.stores.transfer import put_files


def main() -> None:
    """Upload every file whose size the store does not hold under its name."""
    if len(sys.argv) == 1:
        return  # what the interpreter and the imports cost
    folder, url = Path(sys.argv[1]), sys.argv[2]
    store = open_store(url)
    held = {stored.key: stored.size for stored in store.list_folder("")}
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    put_files(store, {k: p for k, p in files.items() if held.get(k) != p.stat().st_size})


if __name__ == "__main__":
    main()
