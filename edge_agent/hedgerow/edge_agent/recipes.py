"""Which recipes this device can train: asked once of a child process, so that this one stays small."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Final

import msgspec

from hedgerow.shared.messages import RecipeReport
from hedgerow.shared.unreadable import UNREADABLE

log = logging.getLogger(__name__)
DEADLINE_S: Final = 120.0
_MAX_OUTPUT_BYTES: Final = 64 * 1024


class InstalledRecipes:
    """Asks in a thread of its own and calls ``on_known`` once the answer is here."""

    def __init__(self, on_known: Callable[[], None]) -> None:
        self._on_known = on_known
        self._found: tuple[RecipeReport, ...] = ()
        self._lock = threading.Lock()
        self._stopped = False
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._ask, name="hedgerow-recipes", daemon=True)

    def start(self) -> None:
        """Start asking."""
        self._thread.start()

    def stop(self) -> None:
        """End the question if it is still open, and return when its process is gone; nothing is asked any more."""
        with self._lock:
            self._stopped = True
            child = self._child
        if child is not None and child.poll() is None:
            child.kill()
            child.wait()

    def found(self) -> tuple[RecipeReport, ...]:
        """Return the recipes; empty until the answer is here, and on a device without the training extra."""
        return self._found

    def _ask(self) -> None:
        # -P: the working directory must not be able to shadow an installed module.
        command = [sys.executable, "-P", "-m", "hedgerow.edge_agent.trainer.installed"]
        try:
            with self._lock:
                if self._stopped:
                    return
                child = self._child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
            output, _ = child.communicate(timeout=DEADLINE_S)
            if self._stopped:
                return
            self._found = tuple(msgspec.json.decode(output[:_MAX_OUTPUT_BYTES], type=list[RecipeReport]))
        except subprocess.TimeoutExpired:
            self.stop()
            log.warning(
                "the installed recipes are not known after %.0f s: this device does inference only",
                DEADLINE_S,
            )
            return
        except (OSError, *UNREADABLE) as error:
            log.warning("the installed recipes are not known (%s): this device does inference only", error)
            return
        if not self._found:
            log.info("no recipe can be trained here (extra [train]): this device does inference only")
        self._on_known()
