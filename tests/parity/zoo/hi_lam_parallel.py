"""HiLAMParallel of neural-lam on a limited area."""

from __future__ import annotations

from neural_lam_peer import case, network


def build():
    from neural_lam.models.step_predictors.graph.hi_lam_parallel import HiLAMParallel

    return HiLAMParallel


CASE = case("hi_lam.HiLAM", {"processor": "parallel"}, network(build, hierarchical=True))
