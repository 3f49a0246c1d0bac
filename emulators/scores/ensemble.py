"""Ensemble scores: the formulas, at single points or on means, of M forecasts x_m of one truth y.

    CRPS         E|X - y| - c/2 E|X - X'|,   E|X - X'| = 2 / (M (M-1)) sum_k (2k - M - 1) x_(k),   x_(k) in order
                 its subgradient: 2 / (M (M-1)) sum_n sign(x_m - x_n), the same for members that coincide
                 fair: c = 1;  biased (the ensemble as it is): c = 1 - 1/M;  almost fair: c = 1 - (1 - alpha)/M
    spread       V = sum_m (x_m - mean x)^2 / (M - 1)
    debiased     (mean x - y)^2 - V / M
    spread/skill sqrt(<V> / <(mean x - y)^2 - V/M>), 1 where the truth could be one of the members
    energy       E|X - y| - c/2 E|X - X'|  with the norm |x|^2 = <x^2> over area: CRPS of whole fields
    threshold    CRPS of max(x, t), or of min(x, t): threshold-weighted
    Gaussian     CRPS of N(mu, s^2) with z = (y - mu)/s:  s [z (2 Phi(z) - 1) + 2 phi(z) - 1/sqrt(pi)]

The member is the first axis. Sorting makes the CRPS O(M log M) in time and O(M) in memory, and all formulas have
gradients, so that losses can be made of them. Gneiting & Raftery 2007, doi 10.1198/016214506000001437; fair scores:
Ferro 2014, doi 10.1002/qj.2270; almost fair: Lang et al. 2024, arXiv 2412.15832.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Kind = Literal["fair", "biased", "almost_fair"]


def members_needed(members: Tensor, least: int) -> int:
    """The number of members; ValueError where there are too few."""
    if members.shape[0] < least:
        raise ValueError(f"This score needs at least {least} members; got {members.shape[0]}.")
    return members.shape[0]


def spread_weight(kind: Kind, members: int, alpha: float = 0.95) -> float:
    """c, the weight of the spread in a score of `members` members; alpha: how fair an almost fair score is."""
    weights = {"fair": 1.0, "biased": 1.0 - 1.0 / members, "almost_fair": 1.0 - (1.0 - alpha) / members}
    if kind not in weights:
        raise ValueError(f"A score is {', '.join(weights)}; got '{kind}'.")
    return weights[kind]


def crps(members: Tensor, target: Tensor, kind: Kind = "fair", alpha: float = 0.95) -> Tensor:
    """Continuous ranked probability score, (member, ...) and (...) -> (...), in the units of the field."""
    error = members - target
    if members.shape[0] == 1 and kind == "biased":
        return error[0].abs()
    weight = spread_weight(kind, members.shape[0], alpha)
    return error.abs().mean(dim=0) - 0.5 * weight * mean_difference(error)


def mean_difference(members: Tensor) -> Tensor:
    """E|X - X'|: mean of |x_m - x_n| over all pairs of two members, (member, ...) -> (...).

    Members that coincide have the same gradient, whatever their number.
    """
    count = members_needed(members, 2)
    if count == 2:
        return (members[1] - members[0]).abs()
    share = 2.0 / (count * (count - 1.0))
    offsets = members - members[:1]  # differences lose no digits to a large mean
    if members.requires_grad:
        with torch.no_grad():
            above = sum((torch.sign(offsets - member) for member in offsets), start=torch.zeros_like(offsets))
        return (above * offsets).sum(dim=0) * share
    rank = torch.arange(1 - count, count, 2, dtype=members.dtype, device=members.device)
    return _ascending(offsets.movedim(0, -1)) @ (rank * share)


def kernel_score(error: Tensor, size: Callable[[Tensor], Tensor], kind: Kind = "fair", alpha: float = 0.95) -> Tensor:
    """E size(x - y) - c/2 E size(x - x') from the errors x - y of the members, (member, ...), for any size of a field.

    size: takes (..., channel, *grid) and may reduce the last axes, such as a norm (Gneiting & Raftery 2007).
    """
    count = members_needed(error, 2)
    distance = torch.stack([size(error[m] - error[n]) for m, n in combinations(range(count), 2)]).mean(0)
    return size(error).mean(0) - 0.5 * spread_weight(kind, count, alpha) * distance


def root(square: Tensor, power: float = 0.5) -> Tensor:
    """Return `square` to a power below 1, with a gradient of 0 where it is 0: members that coincide stay finite."""
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).pow(power), 0.0)


def _ascending(values: Tensor) -> Tensor:
    """Sorted along the last axis; on the CPU numpy does it many times faster than torch."""
    return values.sort(dim=-1).values if values.device.type != "cpu" else torch.from_numpy(np.sort(values.numpy(), -1))


def variance(members: Tensor) -> Tensor:
    """V, the unbiased variance of the members, (member, ...) -> (...)."""
    members_needed(members, 2)
    return members.var(dim=0, correction=1)


def debiased_squared_error(members: Tensor, target: Tensor) -> Tensor:
    """Squared error of the ensemble mean less what its finite size adds, (member, ...), (...) -> (...)."""
    return (members.mean(dim=0) - target).square() - variance(members) / members.shape[0]


def spread_skill(variance: Tensor, debiased_square: Tensor) -> Tensor:
    """Ratio of spread to skill from the means of both; NaN where the debiased square is negative."""
    return (variance / debiased_square).sqrt()


def rank_shares(members: Tensor, target: Tensor) -> Tensor:
    """1 at the rank of the truth (how many members lie below it), (member, ...), (...) -> (member + 1, ...).

    Where members equal the truth, the ranks it might have share the 1 evenly: the mean over all ways to break the tie.
    """
    below, ties = (members < target).sum(dim=0), (members == target).sum(dim=0)
    rank = torch.arange(members.shape[0] + 1, device=target.device).view(-1, *(1,) * target.ndim)
    broken = 0.0 * (target + members.sum(dim=0))  # NaN where anything is
    return ((rank >= below) & (rank <= below + ties)) / (ties + 1.0).to(target.dtype) + broken


def energy_score(members: Tensor, target: Tensor, weights: Tensor, kind: Kind = "fair", alpha: float = 0.95) -> Tensor:
    """Energy score of whole fields, (member, ..., point), (..., point) -> (...); the norm is sqrt(sum weights x^2).

    weights: (point,); of sum 1 for means over area, all 1 for the plain norm.
    """
    error = members - target
    return energy_from_products(torch.einsum("m...p,n...p,p->mn...", error, error, weights), kind, alpha)


def energy_from_products(products: Tensor, kind: Kind = "fair", alpha: float = 0.95) -> Tensor:
    """Energy score from <(x_m - y)(x_n - y)> of all pairs of members, (member, member, ...) -> (...)."""
    count = members_needed(products, 2)
    square = torch.diagonal(products, dim1=0, dim2=1).movedim(-1, 0)
    first, second = np.triu_indices(count, 1)
    squared = (square[first] + square[second] - 2.0 * products[first, second]).clamp(min=0.0)
    return square.sqrt().mean(dim=0) - 0.5 * spread_weight(kind, count, alpha) * squared.sqrt().mean(dim=0)


def beyond(field: Tensor, threshold: Tensor | float, upper: bool = True) -> Tensor:
    """max(field, threshold), or the minimum for the lower tail: what threshold-weighted scores see of a field."""
    limit = torch.as_tensor(threshold, dtype=field.dtype, device=field.device)
    return torch.maximum(field, limit) if upper else torch.minimum(field, limit)


def gaussian_pit(members: Tensor, target: Tensor) -> Tensor:
    """F(y) of the normal distribution with the members' mean and spread, (member, ...), (...) -> (...).

    Where members coincide, 0, 1/2 or 1: the truth lies below, at or above them.
    """
    error, std = target - members.mean(dim=0), variance(members).sqrt()
    return 0.5 * (1.0 + torch.erf(torch.where(error == 0.0, error, error / std) / math.sqrt(2.0)))


def histogram_shares(probability: Tensor, bins: int) -> Tensor:
    """1 at the bin of each probability from 0 to 1, (...) -> (bin, ...); NaN where it is missing."""
    place = (probability * bins).floor().clamp(max=bins - 1)
    number = torch.arange(bins, dtype=place.dtype, device=place.device).view(-1, *(1,) * place.ndim)
    return (place == number).to(place.dtype) + 0.0 * place


def gaussian_crps(mean: Tensor, std: Tensor, target: Tensor) -> Tensor:
    """CRPS of a normal distribution, shapes that broadcast; std must be positive."""
    z = (target - mean) / std
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2.0 * math.pi)
    return std * (z * torch.erf(z / math.sqrt(2.0)) + 2.0 * density - 1.0 / math.sqrt(math.pi))
