"""HiLAM of neural-lam on a limited area."""

from __future__ import annotations

from neural_lam_peer import case, network


def build():
    from neural_lam.models.step_predictors.graph.hi_lam import HiLAM

    return HiLAM


CASE = case("hi_lam.HiLAM", {}, network(build, hierarchical=True))
