"""The report is one safe, complete page, and the summary has the keys that scripts rely on."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import synthetic_campaign as synthetic
from reading_reports import Reader, data, specs

from dubito.config import parse_config
from dubito.core import progress
from dubito.core.errors import DataError
from dubito.data.store import read_attributes, read_predictions, read_structures, write_structures
from dubito.data.structures import Structures
from dubito.reporting import bins, bundle, cost, geometry, learning, page, words
from dubito.reporting.collect import collect
from dubito.reporting.summary import summarise
from dubito.stages import write_report

TITLE = "Ammonia <script>alert('x')</script> & \"friends\""
SECTIONS = [
    "certificate", "planning", "learning", "profiles", "parity", "doubt", "methods", "exploring", "choosing",
    "selected", "failures", "cost", "configuration", "versions",
]  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def script_cache(tmp_path_factory):
    """Keep the chart script out of the user's cache folder."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("campaign")
    return synthetic.build(folder, iterations=4, vary=True, config={"report": {"title": TITLE}})


@pytest.fixture(scope="module")
def html(campaign):
    return page.render(collect(campaign.folder, campaign.config))


# --- the page ---------------------------------------------------------------------------------


def test_sections_stand_in_order(html):
    found = [attrs["id"] for tag, attrs in Reader(html).tags if tag == "section" and "id" in attrs]
    assert found == SECTIONS
    links = [attrs["href"] for tag, attrs in Reader(html).tags if tag == "a"]
    assert [f"#{name}" for name in SECTIONS] == [link for link in links if link != "#main"]


def test_the_verdict_comes_first_and_in_words(html):
    text = Reader(html).text
    assert text.index("Running") < text.index("Learning curve")
    assert "2 accepted control structures are too few to bound the miss rate" in text
    assert "at least 72" in text


def test_strings_of_users_are_escaped(html, campaign):
    assert "<script>alert" not in html
    assert "<b>HOMO</b>" not in html  # message of a failed label
    text = Reader(html).text
    assert TITLE in text
    assert "<b>HOMO</b>-LUMO" in text


def test_a_hostile_name_in_a_profile_file_stays_text(campaign, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(campaign.folder, folder)
    path = folder / "iter_003" / "predictions" / "profile_inversion.h5"
    about = read_attributes(path)["profile"] | {"coordinate_label": "</script><img src=x onerror=alert(1)>"}
    write_structures(path, read_structures(path), predictions=read_predictions(path), attributes={"profile": about})
    html = page.render(collect(folder, campaign.config))
    assert not any(tag == "img" for tag, _ in Reader(html).tags)
    assert "</script><img" not in html
    assert specs(html)["charts"]["profile-0-3"]


def test_nothing_is_loaded_from_anywhere(html):
    reader = Reader(html)
    for tag, attrs in reader.tags:
        assert "src" not in attrs, tag
        if tag == "link":
            assert attrs["href"] == "data:,"
    styles = re.findall(r"<style>(.*?)</style>", html, re.S)
    assert len(styles) == 1
    assert not re.search(r"@import|url\(", styles[0])
    assert "http" not in json.dumps(specs(html))
    assert not any(tag in ("iframe", "object", "embed", "img") for tag, _ in reader.tags)


def test_the_page_is_small_and_has_one_chart_script(html):
    assert len(html.encode()) < 2_000_000
    assert html.count("window.vegaEmbed") >= 1
    assert len([1 for tag, attrs in Reader(html).tags if tag == "script" and "type" in attrs]) == 2


def test_the_page_can_be_read_without_eyes_or_mouse(html):
    reader = Reader(html)
    assert ("html", {"lang": "en"}) in reader.tags
    assert any(tag == "meta" and attrs.get("name") == "viewport" for tag, attrs in reader.tags)
    charts = [attrs for tag, attrs in reader.tags if attrs.get("class") == "chart"]
    assert charts
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in charts)
    scrolling = [attrs for tag, attrs in reader.tags if attrs.get("class") == "scroll"]
    assert all(attrs["tabindex"] == "0" and attrs["aria-label"] for attrs in scrolling)
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    references = {attrs["aria-labelledby"] for _, attrs in reader.tags if "aria-labelledby" in attrs}
    assert references <= set(ids)


def test_every_chart_has_a_place_and_is_valid_vega_lite(html):
    import altair

    places = {attrs["id"] for _, attrs in Reader(html).tags if attrs.get("class") == "chart"}
    found = specs(html)
    assert places == set(found["charts"])
    for spec in found["charts"].values():
        altair.Chart.from_dict(spec, validate=True)
    altair.Chart.from_dict({"mark": "point", "encoding": {}, "config": found["config"], "data": {"values": []}})


def test_every_iteration_shows_its_profile_and_barrier(html):
    charts = specs(html)["charts"]
    assert {f"profile-0-{k}" for k in range(4)} <= set(charts)
    heights = [charts[f"profile-0-{k}"]["height"] for k in range(4)]
    assert heights[3] > heights[0] == heights[1] == heights[2]
    error_of = {row["iteration"]: row["error"] for row in data(charts["barrier-0-0"]) if "error" in row}
    assert [error_of[k] for k in range(4)] == pytest.approx(
        [1000 * synthetic.barrier_error(k) for k in range(4)], abs=1e-6
    )


def test_findings_state_the_numbers_behind_them(campaign):
    planted = synthetic.build(campaign.folder.parent / "planted", iterations=3)
    text = Reader(page.render(collect(planted.folder, planted.config))).text.replace("\u2060", "").replace("\xa0", " ")
    assert "the force RMSE on validation structures fell from 400 to 100 meV/Å" in text
    assert "298 ± 8.61 meV" in text  # 250 + 48; members' spread 10 / 3 * sqrt(20 / 3)
    assert "+48.0 meV off" in text
    assert "iteration 0 was +300 meV off" in text


def test_many_points_become_counts(campaign):
    config = campaign.config.model_copy(
        update={"report": campaign.config.report.model_copy(update={"max_points": 100})}
    )
    charts = specs(page.render(collect(campaign.folder, config)))["charts"]
    energy, force, doubt = charts["energy-parity-0"], charts["force-parity-0"], charts["error-uncertainty-0"]
    assert "'rect'" in str(force)
    assert "'rect'" in str(doubt)
    assert "'rect'" not in str(energy)


def test_the_first_iteration_has_a_report(campaign):
    html = page.render(collect(campaign.folder, campaign.config, last=0))
    text = Reader(html).text
    assert "Exploring starts in iteration 1." in text
    assert "no accepted control structure yet" in text
    assert "NaN" not in json.dumps(specs(html))


def test_predictions_that_are_no_numbers_do_not_spoil_the_page(campaign, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(campaign.folder, folder)
    for name in ("dataset", "profile_inversion"):
        path = folder / "iter_003" / "predictions" / f"{name}.h5"
        said, kept = read_predictions(path), read_attributes(path)
        said[synthetic.METHOD]["energy"][:] = np.nan
        said[synthetic.METHOD]["forces"][:] = np.nan
        about = {"profile": kept["profile"]} if "profile" in kept else {}
        write_structures(path, read_structures(path), predictions=said, attributes=about)
    html = page.render(collect(folder, campaign.config))
    assert "NaN" not in re.search(r'id="specs">(.*?)</script>', html, re.S)[1]
    assert "No finite force has been predicted." in Reader(html).text


def test_a_half_finished_iteration_is_left_out(campaign, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(campaign.folder, folder)
    (folder / "iter_003" / "metrics.json").unlink()
    (folder / "iter_002" / "decision.json").unlink()
    found = collect(folder, campaign.config)
    assert found.last.index == 2
    assert "no decision is written yet" in Reader(page.render(found)).text


def test_files_left_over_from_earlier_settings_are_not_reported(tmp_path):
    """A smaller batch, fewer exploring jobs, another profile: Snakemake leaves what nobody asks for any more."""
    campaign = synthetic.build(tmp_path, iterations=2)
    before = collect(tmp_path, campaign.config)
    where, stranger = campaign.where(1), campaign.ammonia(4, 0.3)
    write_structures(where / "labels" / "shard_007.h5", stranger)
    failed = [{"id": stranger.ids[0], "reason": "scf_not_converged", "message": ""}]
    report = {"shard": 7, "done": 3, "failed": failed, "reused": 0, "cpu_s": 1e6, "wall_s": 1e6}
    (where / "labels" / "shard_007.json").write_text(json.dumps(report))
    write_structures(where / "pool" / "job_5.h5", stranger, attributes={"stops": {"old": 9}, "walkers": 99})
    shutil.copy(where / "predictions" / "profile_inversion.h5", where / "predictions" / "profile_old.h5")
    shutil.copy(where / "predictions" / "dataset.h5", where / "predictions" / "test.h5")
    after = collect(tmp_path, campaign.config)
    assert summarise(after) == summarise(before)
    assert after.failures == before.failures
    assert (after.last.stops, after.last.walkers) == (before.last.stops, before.last.walkers)
    assert [profile.name for profile in after.last.profiles] == ["inversion"]
    assert set(after.sets) == {"train", "valid"}


def test_labels_of_the_profile_are_part_of_the_cost(tmp_path):
    campaign = synthetic.build(tmp_path, iterations=1)
    before = summarise(collect(tmp_path, campaign.config))["cost"]["dft_cpu_hours"]
    write_structures(
        tmp_path / "reference" / "profile_inversion.h5", campaign.ammonia(2, 0.1), attributes={"cpu_s": 7200.0}
    )
    after = summarise(collect(tmp_path, campaign.config))["cost"]["dft_cpu_hours"]
    assert after == pytest.approx(before + 2)


def test_labels_known_leave_out_the_control_slice(tmp_path):
    campaign = synthetic.build(tmp_path, iterations=3)
    rows = learning._learning_rows(collect(tmp_path, campaign.config))
    known = {(row["name"], row["iteration"]): row["labels"] for row in rows}
    # 12 initial; then 13 labels each iteration, of which 2 are control and learnt one iteration later.
    assert [known["train", k] for k in range(3)] == [12, 23, 36]
    assert [known["new", k] for k in (1, 2)] == [12, 23]


def test_energies_of_ions_are_measured_from_their_own_minimum():
    pair = Structures.build(
        [[1, 1]] * 3,
        [np.array([[0, 0, 0], [0, 0, 0.8]])] * 3,
        charge=[0, 0, 1],
        labels__energy=[-31.0, -32.0, -16.0],
        labels__forces=np.zeros((6, 3)),
        labels__mask=[True] * 3,
    )
    assert geometry.composition_minimum(pair) == {"H2": -32.0, "H2 charge +1": -16.0}


def test_an_empty_folder_is_said_to_be_empty(tmp_path):
    with pytest.raises(DataError, match="no evaluated iteration"):
        collect(tmp_path, parse_config({}))


# --- stage ------------------------------------------------------------------------------------


def write(campaign, k, *, final):
    where = campaign.folder / ("report" if final else f"iter_{k:03d}")
    return write_report.run(
        folder=campaign.folder,
        iteration=k,
        output=where / ("index.html" if final else "report.html"),
        summary=campaign.folder / "summary.json" if final else where / "summary.json",
        config=campaign.config,
        final=final,
    )


def test_an_interim_report_is_never_taken_for_the_final_one(tmp_path):
    campaign = synthetic.build(tmp_path, iterations=2)
    write(campaign, 1, final=False)
    for path in (tmp_path / "report" / "index.html", tmp_path / "summary.json"):
        assert path.stat().st_mtime == 1
    assert (tmp_path / "iter_001" / "report.html").stat().st_mtime > 1e9
    assert (tmp_path / "report" / "index.html").read_text() == (tmp_path / "iter_001" / "report.html").read_text()
    assert json.loads((tmp_path / "summary.json").read_text())["state"] == "running"
    end(tmp_path / "iter_001" / "decision.json")
    line = write(campaign, 1, final=True)
    assert (tmp_path / "report" / "index.html").stat().st_mtime > 1e9
    assert (tmp_path / "summary.json").stat().st_mtime > 1e9
    assert "\n" not in line


def end(path):
    """Let a decision end the campaign."""
    path.write_text(json.dumps({**json.loads(path.read_text()), "stop": True, "state": "max_iterations"}))


def test_a_campaign_that_goes_on_gets_no_final_report(tmp_path):
    campaign = synthetic.build(tmp_path, iterations=2)
    with pytest.raises(DataError, match=r"iter_001/decision\.json is missing or lets the campaign go on"):
        write(campaign, 1, final=True)
    assert not (tmp_path / "report" / "index.html").exists()


def test_no_report_of_an_iteration_without_its_metrics(tmp_path):
    campaign = synthetic.build(tmp_path, iterations=2)
    end(tmp_path / "iter_001" / "decision.json")
    (tmp_path / "iter_001" / "metrics.json").unlink()
    with pytest.raises(DataError, match=r"iter_001/metrics\.json is missing, so that it would tell of iteration 0"):
        write(campaign, 1, final=True)


def test_the_report_of_an_iteration_does_not_know_the_future(campaign):
    write(campaign, 1, final=False)
    summary = json.loads((campaign.folder / "summary.json").read_text())
    assert summary["iterations"] == 2
    assert len(summary["physics"]["inversion_barrier_error_ev"]) == 2
    assert summary["cost"]["cpu_hours"] == pytest.approx(2 * 2 * (8 + 20 + 36) / 3600)


def test_summary_keys_are_fixed(tmp_path):
    campaign = synthetic.build(tmp_path, iterations=3, config={"campaign": {"max_iterations": 2}})
    write(campaign, 2, final=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["state"] == "max_iterations"
    assert "campaign.max_iterations" in summary["reason"]
    assert summary["iterations"] == 3
    assert summary["driver"] == "ensemble"
    assert summary["labels"] == {"done": 12 + 13 + 13, "failed": 2, "reused": 3}
    assert summary["force_rmse_ev_per_angstrom"] == pytest.approx(synthetic.force_error(2))
    assert set(summary["miss_rate"]) == {"value", "low", "high", "tolerance_ev_per_angstrom", "risk"}
    assert set(summary["cost"]) == {"cpu_hours", "gpu_hours", "dft_cpu_hours"}
    assert summary["cost"]["dft_cpu_hours"] == pytest.approx((2 + 3 + 3) * 18 / 3600)
    errors = [synthetic.barrier_error(k) for k in range(3)]
    assert summary["physics"] == {"inversion_barrier_error_ev": pytest.approx(errors, abs=1e-9)}


def test_a_test_set_is_the_first_to_be_believed(tmp_path):
    teacher = {"labelling": {"labeller": {"kind": "teacher"}}}
    campaign = synthetic.build(tmp_path, iterations=2, n_test=7, config=teacher)
    end(tmp_path / "iter_001" / "decision.json")
    write(campaign, 1, final=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["force_rmse_set"] == "test"
    assert summary["force_rmse_ev_per_angstrom"] == pytest.approx(synthetic.force_error(1))
    text = Reader((tmp_path / "report" / "index.html").read_text()).text
    assert "on 7 test structures" in text
    assert "no independent test set" not in text
    assert "a rehearsal" in text


# --- parts ------------------------------------------------------------------------------------


def test_only_finished_jobs_cost():
    events = [
        {"event": "started", "stage": "label", "iteration": 0},
        {"event": "finished", "stage": "label", "iteration": 0, "wall_s": 2, "cpu_s": 3},
        {"event": "finished", "stage": "label", "iteration": 0, "wall_s": 4, "cpu_s": None, "gpu_s": 1800},
        {"event": "failed", "stage": "label", "iteration": 0, "wall_s": 100, "cpu_s": 100},
        {"event": "finished", "stage": "label", "iteration": 5, "wall_s": 100, "cpu_s": 100},
        {"event": "finished", "stage": "prepare", "wall_s": 1, "cpu_s": 1},
    ]
    found = cost.stage_costs(events, last=1)
    assert [(c.stage, c.iteration, c.jobs, c.wall_s, c.cpu_s) for c in found] == [
        ("label", 0, 2, 6.0, 3.0),
        ("prepare", None, 1, 1.0, 1.0),
    ]
    assert cost.hours(found, [{"cpu_s": 7200.0}]) == pytest.approx(
        {"cpu_hours": 4 / 3600, "gpu_hours": 0.5, "dft_cpu_hours": 2.0}
    )


def test_grid_counts_keep_every_point():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=500), rng.normal(size=500)
    rows = bins.grid_counts(x, y, bins.linear_edges(x, y))
    assert sum(row["n"] for row in rows) == 500
    u, v = rng.lognormal(0, 2, 300), rng.lognormal(1, 2, 300)
    assert sum(row["n"] for row in bins.grid_counts(u, v, bins.decade_edges(u, v))) == 300


def test_smallest_distance_looks_across_the_cell():
    pair = Structures.build([[1, 1]], [[[0.1, 0, 0], [3.9, 0, 0]]], cell=4 * np.eye(3), pbc=True)
    assert geometry.smallest_distance(pair) == pytest.approx(0.2)
    lone = Structures.build([[1]], [[[0, 0, 0]]])
    assert geometry.smallest_distance(lone) is None
    assert geometry.smallest_distance(pair[0].__class__.build([[1, 1]], [[[0, 0, 0], [0, 3, 4]]])) == pytest.approx(5)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "12.3"),
        (-0.1, "−100"),
        (None, "–"),
        (float("nan"), "–"),
        (0, "0"),
        (1.5, "1,500"),
        (0.0999999, "100"),
    ],
)
def test_numbers_in_words(value, text):
    assert words.milli(value) == text


def test_a_cut_off_chart_script_is_made_again(monkeypatch, tmp_path):
    import vl_convert

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    whole = "x" * 200_000 + "</script>"
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda snippet: whole)
    made = bundle.vega_bundle()
    assert "</script" not in made
    (path,) = (tmp_path / "dubito").iterdir()
    path.write_text("cut off")
    assert bundle.vega_bundle() == made == path.read_text()


def test_a_cache_that_can_not_be_written_is_no_obstacle(monkeypatch, tmp_path):
    import vl_convert

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda snippet: "drawn")
    assert bundle.vega_bundle() == "drawn"


def test_the_latest_event_is_shown_while_it_runs(tmp_path):
    campaign = synthetic.build(tmp_path, iterations=1)
    progress.record(tmp_path / "progress.jsonl", event="started", stage="explore_structures", text="exploring <fast>")
    assert "Latest event: exploring <fast>" in Reader(page.render(collect(tmp_path, campaign.config))).text
