"""Guards: dates seen in training, analyses unlike those of training, forcing that nobody knows beforehand."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import example_data
from data_pipelines.batches.archive import Archive
from data_pipelines.batches.scales import scales
from data_pipelines.batches.seen import Guards, SeenDates, ranges_seen, seen_from_plain, seen_in_splits, together
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.conventions.canonical import canonical
from data_pipelines.forecasts.analyses import future_forcings, guarded_marks, unlike_training
from data_pipelines.forecasts.rollouts import forcings
from emulators.world import Scale, World

ROLES = VariableRoles(["temperature", "2m_temperature"], forcing=["sea", "sin_year"], static=["land_sea_mask"])
TRAIN = ["2001-01-01", "2001-01-20"]
INITS = np.array(["2001-01-24", "2001-01-25"], dtype="datetime64[s]")


def dataset(change=lambda data: data):
    """Fields with a profile, so that levels can be told apart, and a sea that warms and cools within 5 days."""
    data = example_data.dataset()
    data["temperature"] = data["temperature"] + 15.0 * np.arange(3)[:, None, None]
    data["temperature"].attrs["units"] = "K"
    warming = np.sin(2.0 * np.pi * np.arange(data.sizes["time"]) / 20.0)
    data["sea"] = 290.0 + data["2m_temperature"] * 0 + warming.astype("f4")[:, None, None]
    return canonical(change(data.drop_vars(["sea_surface_temperature", "soil_temperature"])))


@pytest.fixture(scope="module")
def world():
    archive = Archive(dataset(), world_from_dataset(dataset(), ROLES))
    return replace(archive.world, scales=scales(archive, TRAIN))


def archive(world, change=lambda data: data, **options):
    return Archive(dataset(change), world, **options)


def test_a_checkpoint_keeps_the_extent(world):
    data = archive(world)
    fields = data.gather(data.within(TRAIN)).numpy().astype(float)
    means = (fields * world.grid.weights).mean((2, 3))
    for channel, name in enumerate(data.variables.channels):
        values = fields[:, channel]
        exact = values.min(), values.max(), means[:, channel].min(), means[:, channel].max()
        np.testing.assert_allclose(World.from_plain(world.plain()).scales[name].extent, exact, rtol=1e-9)


def test_an_analysis_like_those_of_training_is_not_marked(world):
    assert unlike_training(archive(world), INITS) == []


def scaled(name, factor, offset=0.0):
    def change(data):
        data[name] = (factor * data[name] + offset).assign_attrs(data[name].attrs)
        return data

    return change


def reversed_levels(data):
    data["temperature"] = data["temperature"].copy(data=data["temperature"].values[:, ::-1])
    return data


WRONG = {
    "biased by 2 K": (
        scaled("2m_temperature", 1.0, 2.0),
        r"^2m_temperature: its mean of 28[12].* above .* deviations\.$",
    ),
    "degC called K": (scaled("2m_temperature", 1.0, -273.15), "its values look like degC"),
    "levels": (reversed_levels, r"2 of 3 channels lie outside .* its levels look reversed"),
    "static": (scaled("land_sea_mask", -1.0), "land_sea_mask: differs from that of training by up to"),
    "forcing": (scaled("sea", 1.0, 9.0), r"^sea: its greatest value of 29\S* K lies \d\S* above that"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(world, name):
    change, sentence = WRONG[name]
    with pytest.MonkeyPatch.context() as patch:  # what a name tells of its values is not looked at here
        patch.setattr("data_pipelines.batches.archive.ChannelLimits.beyond", lambda *_: None)
        (told,) = unlike_training(archive(world, change), INITS)
    assert re.search(sentence, told), told


def test_forcing_of_the_future_is_marked_unless_it_is_held(world):
    (told,) = future_forcings(archive(world), INITS, 4)
    assert told.startswith("sea is read from the data at the times that are predicted")
    assert future_forcings(archive(world), INITS, 4, others=["sea"]) == []
    prescribed = archive(world)
    prescribed.dataset["sea"].attrs["known_beforehand"] = 1
    assert future_forcings(prescribed, INITS, 4) == []
    held = archive(world, held=["sea"])
    assert future_forcings(held, INITS, 4) == []
    start = held.forcing(INITS)
    for forcing in forcings(held, INITS, range(1, 5), "cpu"):
        assert torch.equal(forcing["sea"], start["sea"])
        assert not torch.equal(forcing["sin_year"], start["sin_year"])
    with pytest.raises(ValueError, match="held: temperature is no forcing"):
        archive(world, held=["temperature"])


SEEN = SeenDates((("2001-01-01", "2001-01-20"),), (("2001-02-01", "2001-02-10"),))


@pytest.mark.parametrize(
    ("init", "lead", "words"),
    [
        ("2001-01-25", 3, []),
        ("2001-01-19", 3, ["1 of 1 forecasts are of times that the run was trained on, the first from 2001-01-19T00"]),
        ("2000-12-28", 5, ["trained on"]),
        ("2001-01-24", 3, ["within 4 days of its training"]),
        ("2001-01-30", 5, ["its best weights were chosen"]),
    ],
)
def test_dates(init, lead, words):
    inits = np.array([init], dtype="datetime64[s]")
    told = Guards(adjacent="4d" if "24" in init else "3d").on_dates(SEEN, inits, np.timedelta64(lead, "D"))
    assert len(told) == len(words)
    assert all(word in sentence for word, sentence in zip(words, told, strict=True))


def test_dates_add_up_and_are_kept(world):
    splits = {"train": TRAIN, "validation": None}
    own = seen_in_splits(archive(world), splits)
    assert own.train == (("2001-01-01T00:00:00", "2001-01-20T18:00:00"),)
    assert own.validation == ()
    both = together([SEEN, own, own, SeenDates(unknown=("theirs.pt",))])
    assert both.train == (*SEEN.train, *own.train)
    assert seen_from_plain(both.plain()) == both
    told = Guards().on_dates(SeenDates(unknown=("theirs.pt",)), INITS, np.timedelta64(1, "D"))
    assert told == ["Nobody says on which dates theirs.pt was trained: forecasts may be of them."]


def test_ranges_add_up():
    def of(*extent):
        return {"t": Scale(0.0, 1.0, 1.0, {}, extent)}

    assert ranges_seen(of(0, 4, 1, 2), of(1, 5, 0, 1.5))["t"].extent == (0, 5, 0, 2)
    assert ranges_seen(of(0, 4, 1, 2), of(1, 5, 0, 1.5), trained=False)["t"].extent == (1, 5, 0, 1.5)
    assert ranges_seen(of(0, 4, 1, 2), {}, trained=False)["t"].extent == ()
    assert ranges_seen(of(0, 4, 1, 2), {})["t"].extent == (0, 4, 1, 2)


def test_refused_marked_ignored(world):
    marks = {"ranges": ["a."], "training_dates": ["b.", "c."]}
    assert Guards().allowed(marks) == ["b.", "c.", "a."]
    assert Guards(training_dates="ignore").allowed(marks) == ["a."]
    with pytest.raises(ValueError, match=r"b\. c\. guards\.training_dates=mark goes on"):
        Guards(training_dates="refuse").allowed(marks)
    with pytest.raises(ValueError, match=r"guards\.ranges: expected mark, refuse or ignore; got 'maybe'"):
        Guards(ranges="maybe")
    ignoring = Guards(ranges="ignore", training_dates="ignore", future_forcing="ignore")
    assert guarded_marks(ignoring, SEEN, archive(world), INITS, 4, None, print) == {}
