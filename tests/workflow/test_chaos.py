"""The chaos benchmark, short: a campaign is hit five times, and ends as one that nobody touched."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.xdist_group("chaos")


def test_interrupted_in_every_way_it_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import chaos

    options = argparse.Namespace(short=True, hits=5, interruptions=5, seed=5, keep=None, pause_s=(1.5, 5.0))
    raw = chaos.raw_of(options)
    expected, tally = chaos.undisturbed(tmp_path / "undisturbed", raw), chaos.Tally()
    assert len(expected) == 6, "two iterations, each with its selection, dataset and decision"
    chaos.on_this_machine(tmp_path, options, options.interruptions, expected, tally)
    assert tally.interruptions >= 5
    assert tally.finished == tally.campaigns
    assert tally.twice == 0
    assert max(tally.repeated, default=0) <= raw["training"]["checkpoint_every_epochs"]
    assert not tally.different
    assert not tally.ended_early


def test_a_label_that_is_made_again_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a second line in the logs, and by a file that is written anew."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from _chaos_campaign import Campaign

    campaign = Campaign(tmp_path, {"campaign": {"name": "chaos"}})
    cache, logs = tmp_path / "results/label_cache/settings", campaign.results / "logs"
    cache.mkdir(parents=True)
    logs.mkdir(parents=True)
    (cache / "a.json").write_text("one")
    (logs / "shard.log").write_text("structure a labelled in 0.3 s\nstructure b labelled in 0.3 s\n")
    campaign.look()
    assert campaign.labels_computed_twice() == 0
    (cache / "new").write_text("another")
    (cache / "new").rename(cache / "a.json")
    campaign.look()
    assert campaign.labels_computed_twice() == 1
    with (logs / "again.log").open("w") as log:
        log.write("structure a labelled in 0.3 s\nstructure b labelled in 0.3 s\n")
    assert campaign.labels_computed_twice() == 2
