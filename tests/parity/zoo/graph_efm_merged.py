"""Graph-EFM of neural-lam on a limited area, on one mesh with merged levels."""

from __future__ import annotations

from neural_lam_peer import network

from zoo.graph_efm import NUMBERS, case


def build():
    from neural_lam.models.step_predictors.graph.graph_efm import GraphEFMMultiScale

    return GraphEFMMultiScale


DEEP = {"latent_dim": NUMBERS, "encoder_m2m_layers": 1, "decoder_m2m_layers": 2}
CASE = case(network(build, hierarchical=False, deep=DEEP), merged=True)
