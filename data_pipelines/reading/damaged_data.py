"""The error for stored data that cannot be read, and how often reading is tried."""

from __future__ import annotations

import numpy as np

WAITS = (0.1, 1.0, 5.0)  # seconds before a failed read is tried again
TIMEOUT = 120.0  # seconds after which a read counts as failed


class DamagedData(OSError, ValueError):
    """Name data that could not be read or decoded several times in a row, so that they can be fetched again."""

    def __init__(self, store: str, variable: str, time: np.datetime64 | str, cause: BaseException) -> None:
        said = " ".join(str(cause).split())[:160]
        super().__init__(
            f"Cannot read '{variable}' at {time} from {store}: a chunk or file is damaged or incomplete, fetch it "
            f"again ({type(cause).__name__}: {said})."
        )
        self.store, self.variable, self.time = store, variable, time
