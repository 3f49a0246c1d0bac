"""GraphLAM of neural-lam on a limited area."""

from __future__ import annotations

from neural_lam_peer import case, network


def build():
    from neural_lam.models.step_predictors.graph.graph_lam import GraphLAM

    return GraphLAM


CASE = case("graph_lam.GraphLAM", {}, network(build, hierarchical=False))
