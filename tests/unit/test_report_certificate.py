"""The report tells what may be accepted, in words whose every number stands in the result files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import synthetic_campaign as synthetic
import synthetic_certificate as planted
from reading_reports import Reader, data, is_clean, read, rows, section, specs

from dubito.reporting import certificate
from dubito.reporting.collect import collect
from dubito.reporting.drift import drift_words
from dubito.reporting.summary import summarise


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return synthetic.build(tmp_path_factory.mktemp("campaign"), iterations=3, n_control=5)


@pytest.fixture
def campaign(built, tmp_path):
    shutil.copytree(built.folder, tmp_path / "campaign")
    return replace(built, folder=tmp_path / "campaign")


# --- what a chemist reads first -----------------------------------------------------------------


def test_the_first_sentence_says_what_can_be_accepted(campaign):
    planted.put(campaign, 2, certificate=planted.certificate())
    html, _, _ = read(campaign)
    text = section(html, "certificate")
    assert (
        "Of the structures that exploring finds, 93 % can be accepted, chosen so that at most 5 % of these are "
        "expected to have a force error above 300 meV/Å (0 of 19 accepted control structures are wrong, 95 % interval "
        "0 % to 18 %)." in text
    )
    assert "4.8 %" not in text.split("asked risk")[0]  # what comes from one lot bounds nothing
    assert "the model that explored, not of the one trained since" in text
    assert "confirmed by one in the two iterations before or by the learning curve" in text


def test_a_certificate_that_does_not_hold_says_what_it_would_take(campaign):
    planted.put(campaign, 2, certificate=planted.certificate(holds=False, accepted=0.61, bad=5, labels_needed=57))
    html, text, _ = read(campaign)
    assert "only 61 % can be accepted instead of the 90 % asked for" in section(html, "certificate")
    assert "only 61 % of what exploring finds can be accepted at a risk of 5 %, and 90 % are asked for." in text
    assert (
        "Of 20 control labels 5 are wrong: it takes a better model, or 57 control labels in which no further one is "
        "wrong." in text
    )


def test_too_few_labels_are_told_from_wrong_ones(campaign):
    few = planted.certificate(n=9, holds=False, accepted=0.0, bound=0.0, threshold=None, labels_needed=19)
    planted.put(campaign, 2, certificate=few)
    html, text, _ = read(campaign)
    said = section(html, "certificate")
    assert "none can be accepted yet at a risk of 5 %" in said
    assert "9 control labels are too few, though none is wrong by more than the tolerance; it would take 19." in said
    assert "nothing that exploring finds can be accepted at a risk of 5 %" in text
    assert "no threshold keeps the risk of 5 %" in text
    assert "It would take 19 control labels without a single wrong one; there are 9 (selection.min_control" in text
    assert is_clean(html)
    wrong = few | {"n_control": 20, "n_bad": 11, "labels_needed": 231}
    planted.put(campaign, 2, certificate=wrong)
    assert "at a risk of 5 %: 11 of 20 control labels are wrong by more than the tolerance." in read(campaign)[1]


def test_failed_control_labels_are_named(campaign):
    planted.put(campaign, 2, certificate=planted.certificate(n_control_failed=2, bad=2))
    text = read(campaign)[1]
    assert "2 control structures could not be labelled and count as wrong." in text
    planted.put(campaign, 2, certificate=planted.certificate(n_control_failed=1, bad=1))
    assert "1 control structure could not be labelled and counts as wrong." in read(campaign)[1]


def test_a_first_certificate_is_not_called_certified(campaign):
    planted.put(campaign, 2, certificate=planted.certificate(), decision={"certified_since": 2})
    assert "Not certified yet: the certificate holds, but has to be confirmed by one in the two" in read(campaign)[1]
    planted.put(campaign, 1, certificate=planted.certificate())
    planted.put(campaign, 2, decision={"certified_since": 1})
    text = read(campaign)[1]
    assert "Not certified" not in text
    assert "The certificate has held since iteration 1." in text


def test_drift_stands_in_the_first_lines_of_the_verdict(campaign):
    found = planted.certificate(drift=planted.drift(), audit=planted.audit(1, 5, 18))
    planted.put(campaign, 2, certificate=found)
    html, text, collected = read(campaign)
    assert text.index("The bound of iteration 1 no longer holds") < text.index("Iteration 2 of 4 is done")
    assert "1.8 times the doubt claimed for it then, and is 2.7 times now (p = 0.0012)" in text
    assert "of 18 fresh control structures that it accepts 5 are wrong" in text
    assert "iteration 2 has a bound of its own, made anew" in text
    assert "Not certified: the certificate holds, but errors or scores have grown" in text
    assert summarise(collected)["certificate"]["drifted"] is True
    planted.put(campaign, 2, certificate=found | {"drift": planted.drift(drifted=False, p=0.4)})
    html, text, collected = read(campaign)
    assert "no longer holds" not in text
    assert summarise(collected)["certificate"]["drifted"] is False
    assert is_clean(html)


def test_a_drift_of_the_scores_alone_is_not_told_as_one_of_the_errors(campaign):
    moved = planted.drift(before=1.8, now=1.9, p=0.7, scores=0.0004)
    planted.put(campaign, 2, certificate=planted.certificate(drift=moved))
    text = read(campaign)[1]
    assert "exploring finds what is doubted more than anything then (p = 0.0004" in text
    assert "1.9 times now" not in text
    nothing = planted.drift(p=None, before=None, now=None, scores=0.0004)
    planted.put(campaign, 2, certificate=planted.certificate(drift=nothing))
    assert is_clean(read(campaign)[0])


def test_a_clean_audit_never_goes_with_a_bound_that_no_longer_holds(campaign):
    found = planted.certificate(drift=planted.drift(), audit=planted.audit(1, 0, 60))
    planted.put(campaign, 2, certificate=found)
    text = read(campaign)[1]
    assert "no longer holds" not in text
    assert "Do not carry the threshold of iteration 1 over: a force error was 1.8 times" in text
    assert "So far fresh labels don't show it: of 60 fresh control structures that it accepts 0 are wrong." in text


@pytest.mark.parametrize("drifted", [False, True], ids=["now", "as an older dubito called it"])
def test_errors_that_fell_against_the_doubt_are_no_warning(campaign, drifted):
    fell = planted.drift(before=2.7, now=1.4, p=1.0 if not drifted else 0.0001, drifted=drifted, cautious=not drifted)
    planted.put(campaign, 2, certificate=planted.certificate(drift=fell, audit=planted.audit(1, 0, 60)))
    html, text, collected = read(campaign)
    assert drift_words(collected.last) == ""
    assert "no longer holds" not in text
    assert "Do not carry" not in text
    assert (
        "The model has become more cautious: a force error was 2.7 times the doubt claimed for it then, and is 1.4"
        in (section(html, "certificate"))
    )
    assert ("cautious (p" in html) is not drifted


def test_what_was_not_tested_is_said(campaign):
    note = "Drift was not tested: the slice before was scored by another method (gmm, now ensemble)."
    planted.put(campaign, 2, certificate=planted.certificate(drift_note=note))
    html, _, collected = read(campaign)
    assert note in section(html, "certificate")
    assert summarise(collected)["certificate"]["drifted"] is None


# --- figures and tables -------------------------------------------------------------------------


def test_the_figure_draws_what_the_files_say(campaign):
    planted.put(campaign, 1, certificate=planted.certificate(holds=False, accepted=0.5, bad=4, missed=1))
    planted.put(campaign, 2, certificate=planted.certificate(audit=planted.audit(1, 2, 10)))
    charts = specs(read(campaign)[0])["charts"]
    shares = {row["iteration"]: row for row in data(charts["certificates-0"]) if "iteration" in row}
    assert {k: (row["accepted"], row["state"]) for k, row in shares.items()} == {
        1: (pytest.approx(50), "does not hold"),
        2: (pytest.approx(93), "holds"),
    }
    assert {row["accepted"] for row in data(charts["certificates-0"]) if "iteration" not in row} == {90.0}
    rates = {(row["iteration"], row["threshold"]): row for row in data(charts["certificates-1"]) if "iteration" in row}
    assert {key: row["value"] for key, row in rates.items()} == {
        (1, "threshold chosen on these labels"): pytest.approx(10),
        (2, "threshold chosen on these labels"): 0.0,
        (2, "threshold of the iteration before"): pytest.approx(20),
    }
    judged = planted.audit(1, 2, 10)
    drawn = rates[2, "threshold of the iteration before"]
    assert (drawn["low"], drawn["high"]) == pytest.approx((100 * judged["low"], 100 * judged["high"]))


def test_the_table_holds_every_number_of_every_iteration(campaign):
    planted.put(campaign, 1, certificate=planted.certificate(holds=False, accepted=0.5, bad=4, n_control_failed=1))
    later = planted.certificate(audit=planted.audit(1, 2, 10), drift=planted.drift(drifted=False, p=0.21))
    planted.put(campaign, 2, certificate=later)
    html = read(campaign)[0]
    headers, first, second = rows(html, "The certificate of every iteration")
    assert len(headers) == len(first) == len(second)
    one, two = (dict(zip(headers, row, strict=True)) for row in (first, second))
    assert (one["holds"], two["holds"]) == ("no", "yes")
    assert (one["accepted share"], one["wrong"], one["without label"], one["controls"]) == ("50 %", "4", "1", "20")
    assert (one["threshold of before"], one["changed"]) == ("–", "–")
    assert (one["asked risk"], one["estimate"], one["wrong of these"]) == ("5 %", "4.8 %", "0")
    assert two["threshold of before"].startswith("2 of 10 (2.5 % to 56 %")
    assert (two["error over doubt"], two["threshold"], two["candidates"]) == ("1.8, 2.7", "0.410", "240")
    assert two["changed"] == "no (p 0.21, scores 0.34)"


def test_strata_are_listed_and_their_names_stay_text(campaign):
    halves = [
        planted.stratum(planted.STRATUM, n=12, bad=0, accepted=0.97, bound=0.04, holds=True, threshold=0.5),
        planted.stratum(planted.HOSTILE, n=8, bad=3, accepted=0.0, bound=0.0, holds=False, threshold=None),
    ]
    planted.put(campaign, 2, certificate=planted.certificate(strata=halves, threshold=None))
    html, _, _ = read(campaign)
    assert "<b>langevin" not in html
    _, good, bad = rows(html, "The same by sampler, latest first")
    assert good == ["langevin 300 K", "2", "yes", "97 %", "4.0 %", "12", "0", "240", "0.500"]
    assert bad[2:] == ["no", "0 %", "–", "8", "3", "240", "–"]
    assert planted.HOSTILE in Reader(html).text.replace("&amp;", "&")
    assert is_clean(html)


def test_one_stratum_is_no_table_of_its_own(campaign):
    planted.put(campaign, 2, certificate=planted.certificate())
    assert "The same by sampler" not in read(campaign)[0]


# --- no certificate -----------------------------------------------------------------------------


def test_a_campaign_of_before_stays_readable(campaign):
    html, text, found = read(campaign)
    assert "made by a dubito that knew none" in section(html, "certificate")
    assert "5 accepted control structures" in section(html, "certificate")
    assert "5 accepted control structures are too few to bound the miss rate" in text
    assert summarise(found)["certificate"] is None
    assert is_clean(html)


def test_without_a_control_slice_it_says_so(tmp_path):
    config = {"selection": {"control_fraction": 0.0}}
    campaign = synthetic.build(tmp_path, iterations=2, n_control=0, config=config)
    html, text, _ = read(campaign)
    assert "Set it to 0.1 to get a certificate" in section(html, "certificate")
    assert "Not certified: no structure is drawn at random (selection.control_fraction is 0)." in text


def test_before_exploring_there_is_nothing_to_certify(tmp_path):
    campaign = synthetic.build(tmp_path, iterations=1)
    planted.put(campaign, 0, certificate=None)
    html, text, _ = read(campaign)
    assert "The first certificate comes with iteration 1" in section(html, "certificate")
    assert "the first control structures are labelled in iteration 1" in text
    assert is_clean(html)


def test_an_iteration_without_control_labels_points_to_the_one_before(campaign):
    planted.put(campaign, 1, certificate=planted.certificate())
    planted.put(campaign, 2, certificate=None)
    metrics = json.loads((campaign.where(2) / "metrics.json").read_text())
    metrics["miss_rate"] |= {"n_accepted": 0, "value": None, "low": 0.0, "high": 1.0}
    (campaign.where(2) / "metrics.json").write_text(json.dumps(metrics))
    html, text, _ = read(campaign)
    assert "iteration 2 has no control labels; the latest certificate is that of iteration 1" in text
    assert "93 % can be accepted" in section(html, "certificate")


# --- summary ------------------------------------------------------------------------------------


def test_the_summary_has_the_heads_of_the_certificate(campaign):
    planted.put(campaign, 2, certificate=planted.certificate(missed=1))
    found = summarise(read(campaign)[2])
    assert found["certificate"] == {
        "holds": True,
        "accepted_fraction": 0.93,
        "bound": pytest.approx(1 / 21),
        "drifted": None,
    }
    assert found["miss_rate"]["value"] == pytest.approx(1 / 19)
    assert set(found["miss_rate"]) == {"value", "low", "high", "tolerance_ev_per_angstrom", "risk"}


def test_one_sentence_for_every_case(campaign):
    """The words of a certificate never fail, whatever is null in it."""
    for accepted, threshold, drifts in (
        (0.0, None, (None, planted.drift())),
        (0.5, 0.1, (None, planted.drift(drifted=False))),
        (1.0, 0.7, (planted.drift(),)),
    ):
        for drift in drifts:
            made = planted.certificate(
                accepted=accepted, threshold=threshold, holds=accepted == 1.0, drift=drift, bound=0.0
            )
            planted.put(campaign, 2, certificate=made)
            last = collect(campaign.folder, campaign.config).last
            assert certificate.finding(last, 0.9).endswith(".")
            assert bool(drift_words(last)) == bool(drift and drift["drifted"])
            assert is_clean(read(campaign)[0])
