"""The report tells how exploring ended, sampler by sampler, and what each code means."""

from __future__ import annotations

import synthetic_campaign as synthetic
from reading_reports import Reader, is_clean, rows

from dubito.config import parse_config
from dubito.config.plugin_sampling import KNOWN_SAMPLERS
from dubito.data.sanity import REASONS
from dubito.data.store import write_structures
from dubito.reporting import page
from dubito.reporting.collect import collect
from dubito.reporting.exploring import ARE, COMPLETED, MEANINGS, meaning
from dubito.sampling import adversarial, langevin
from dubito.sampling.base import COMPLETED as MADE

SAMPLERS = {
    "sampler": {"kind": "langevin", "n_jobs": 2},
    "more_samplers": [
        {"kind": "rattle", "n_structures": 30, "displacements_angstrom": [0.05]},
        {"kind": "adversarial", "n_structures": 10},
    ],
}
STOPS = (
    ({"completed": 3, "uncertainty": 1}, 4),
    ({"uncertainty": 4}, 4),
    ({"completed": 48, "min_distance": 2}, 50),
    ({"reached": 2, "above_target": 5, "not_reached": 3}, 10),
)


def test_every_code_is_explained() -> None:
    assert MADE == COMPLETED
    for code in (*langevin.STOPS, *adversarial.STOPS, *REASONS):
        for sampler in ARE:
            assert meaning(sampler, code) != code.replace("_", " ")
    assert set(ARE) == set(KNOWN_SAMPLERS)
    assert set(MEANINGS) <= {*langevin.STOPS, *adversarial.STOPS}
    assert meaning("of_a_plug_in", "went_home") == "went home"


def test_walkers_and_structures_are_told_apart(tmp_path) -> None:
    campaign = synthetic.build(tmp_path, iterations=2)
    raw = campaign.config.model_dump(mode="json") | {"sampling": SAMPLERS}
    config = parse_config(raw)
    assert config.sampling.n_jobs == len(STOPS)
    stranger = campaign.ammonia(4, 0.3)
    for job, (stops, walkers) in enumerate(STOPS):
        about = {"stops": stops, "walkers": walkers, "steps": 9}
        write_structures(campaign.where(1) / "pool" / f"job_{job}.h5", stranger, attributes=about)
    found = collect(tmp_path, config)
    assert found.last.stops["langevin"] == {"completed": 3, "uncertainty": 5}
    assert found.last.walkers == 68
    html = page.render(found)
    text = Reader(html).text
    assert "5 of 8 walkers of langevin (62\xa0%) ended with the code 'uncertainty' (doubt of" in text
    assert "48 of 50 structures of rattle (96\xa0%) ended with the code 'completed' (made, and sane" in text
    assert "5 of 10 climbs of adversarial (50\xa0%) ended with the code 'above_target' (started from" in text
    _, *lines = rows(html, "How walkers, climbs and structures ended")
    assert [line[:3] for line in lines][:3] == [
        ["langevin", "walkers", "completed"],
        ["langevin", "walkers", "uncertainty"],
        ["rattle", "structures", "completed"],
    ]
    assert is_clean(html)


def test_a_pool_that_is_gone_is_told_from_the_metrics(tmp_path) -> None:
    campaign = synthetic.build(tmp_path, iterations=2)
    for path in (campaign.where(1) / "pool").glob("*.h5"):
        path.unlink()
    found = collect(tmp_path, campaign.config)
    stops = found.last.metrics.get("exploring", {}).get("stops")
    assert found.last.stops == ({"": stops} if stops else {})
    assert "walkers of langevin" not in Reader(page.render(found)).text
