"""Settings are frozen, typed, and refuse what they do not know."""

from typing import get_args

import pytest

from isrf.contract.errors import ConfigError
from isrf.method.ranking.fusion import CHANNELS
from offline.config import PRESETS, Channel, PresetName, RunConfig, build_config


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_is_valid_and_named_in_the_result(preset: PresetName) -> None:
    assert build_config(preset).preset == preset


def test_assignments_beat_the_file_and_the_file_beats_the_preset() -> None:
    config = build_config("mini", {"train": {"epochs": 5, "batch_size": 8}}, ("train.epochs=7",))
    assert (config.train.epochs, config.train.batch_size) == (7, 8)
    assert config.model.width == build_config("mini").model.width


def test_presets_are_not_changed_by_what_is_put_on_top() -> None:
    before = build_config("mini")
    build_config("mini", None, ("model.width=32", "graph.dim=8"))
    assert build_config("mini") == before


def test_none_can_be_assigned() -> None:
    assert build_config("demo", None, ("ingest.shuffle_ties=3", "ingest.shuffle_ties=none")).ingest.shuffle_ties is None


@pytest.mark.parametrize(
    ("assignment", "named"),
    [("train.epoch=3", "train.epoch"), ("colour=red", "colour"), ("train.epochs=many", "train.epochs"),
     ("train.epochs=0", "train.epochs"), ("embed.dim=-1", "embed.dim")],
)  # fmt: skip
def test_an_unknown_or_impossible_setting_is_named(assignment: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as error:
        build_config("demo", None, (assignment,))
    assert error.value.code == "config.invalid"


def test_an_assignment_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        build_config("demo", None, ("train.epochs",))
    assert error.value.code == "config.assignment"


def test_a_preset_is_chosen_by_name_alone() -> None:
    """Set as a value it would change the name and none of the sizes."""
    with pytest.raises(ConfigError) as error:
        build_config("demo", None, ("preset=small",))
    assert error.value.code == "config.preset"


def test_channels_are_named_with_commas_and_known() -> None:
    config = build_config("demo", None, ("evaluate.without=group,content",))
    assert config.evaluate.without == ("group", "content")
    with pytest.raises(ConfigError, match=r"evaluate\.without"):
        build_config("demo", None, ("evaluate.without=horoscope",))


def test_the_configurations_channels_are_those_that_are_fused() -> None:
    assert get_args(Channel) == CHANNELS


def test_a_configuration_survives_its_own_json() -> None:
    config = build_config("small", None, ("train.epochs=2",))
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
