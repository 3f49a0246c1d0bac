"""Rows by lead: the same array however they come."""

import numpy as np
import torch

from emulators.verification.budget_ledger import RowsByLead


def test_stretches_of_any_length_are_as_leads_one_by_one():
    whole = np.random.default_rng(0).random((2, 5, 7))  # (quantity, init, lead)
    one, other = RowsByLead((2,), 7), RowsByLead((2,), 7)
    assert not one
    for first, inits in ((0, slice(0, 3)), (3, slice(3, 5))):
        for lead in range(7):
            one.add(lead, torch.from_numpy(whole[:, inits, lead]))
        for cut in ((0, first + 1), (first + 1, 7)):
            other.extend(cut[0], whole[:, inits, slice(*cut)])
    assert one
    assert other
    np.testing.assert_array_equal(one.array(), whole)
    np.testing.assert_array_equal(other.array(), whole)


def test_leads_that_nobody_adds_are_missing():
    rows = RowsByLead((1,), 3)
    rows.extend(1, np.ones((1, 2, 1)))
    assert np.isnan(rows.array()[..., [0, 2]]).all()
    assert (rows.array()[..., 1] == 1.0).all()
    assert RowsByLead((4,), 3).array().shape == (4, 0, 3)
