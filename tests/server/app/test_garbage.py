"""What a started server holds is not looked through again by the garbage collector."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc
import hedgerow.server.app.server
from hedgerow.server.app.garbage import settle

def looked_through():
    return len(gc.get_objects())

class Node:
    pass

imported = looked_through()
settle()
left = looked_through()
cycle = Node()
cycle.itself, cycle.made = cycle, gc.is_tracked(cycle)
del cycle
print(imported, left, gc.collect(), gc.isenabled())
"""


def test_what_was_imported_is_left_alone_and_new_garbage_is_still_found() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=True
    )
    imported, left, found, enabled = done.stdout.split()

    assert int(imported) > 50_000
    assert int(left) < 1_000
    assert int(found) >= 1
    assert enabled == "True"
