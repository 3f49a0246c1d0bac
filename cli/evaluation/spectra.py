"""Choose the fields and lead times whose spectra are computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.verification.score_rows import headline_leads, map_variables
from emulators.variables import VariableSet
from emulators.verification.spectra import LeadSpectra
from emulators.world import World

MOST_FIELDS, MOST_LEADS = 10, 6


def chosen(
    world: World,
    variables: VariableSet,
    leads: np.ndarray,
    fields: Sequence | None,
    wanted: np.ndarray | None,
    **more: Any,
) -> tuple[LeadSpectra | None, str]:
    """An empty sum of spectra for those of `variables` and `leads` that are wanted, and a note where there is none.

    fields, wanted: default: the first ten channels and six leads of the score card.
    """
    kept = leads[headline_leads(leads, most=MOST_LEADS)] if wanted is None else np.intersect1d(leads, wanted)
    if not kept.size or (fields is not None and not len(fields)):
        return None, ""
    try:
        return LeadSpectra(world, map_variables(variables, fields, most=MOST_FIELDS), list(kept), **more), ""
    except ValueError as error:
        return None, f"Spectra left out: {error}"
