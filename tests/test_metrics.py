"""broker.metrics: what the page says, and that one broken reader does not cost the rest."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker.metrics import LABEL_VALUES_MAX, Metrics


def samples(metrics: Metrics) -> dict[str, float]:
    """Parse the page as Prometheus would: ``name{labels}`` to value."""
    page, _ = metrics.exposition()
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_the_page_reads_the_counters_when_it_is_asked_for() -> None:
    stored = 0
    metrics = Metrics()
    metrics.counter("kotak_messages_stored", "Messages stored", lambda: stored)
    metrics.gauge("kotak_sessions", "Live sessions", lambda: 2.5)
    assert samples(metrics)["kotak_messages_stored_total"] == 0
    stored = 7
    found = samples(metrics)
    assert found["kotak_messages_stored_total"] == 7
    assert found["kotak_sessions"] == 2.5


def test_a_label_divides_a_metric_and_new_values_appear_by_themselves() -> None:
    errors = {"busy": 1}
    metrics = Metrics()
    metrics.counter("kotak_errors_total", "Errors", lambda: errors, label="code")
    errors["conflict"] = 3
    found = samples(metrics)
    assert found["kotak_errors_total[busy]"] == 1
    assert found["kotak_errors_total[conflict]"] == 3


def test_a_failing_read_is_left_out_and_counted_and_the_others_stand() -> None:
    metrics = Metrics()
    metrics.gauge("kotak_broken", "Broken", lambda: 1 / 0)
    metrics.gauge("kotak_nothing", "No number", lambda: {"a": 1.0})
    metrics.gauge("kotak_unlabelled", "No mapping", lambda: 1.0, label="kind")
    metrics.gauge("kotak_good", "Good", lambda: 1.0)
    assert samples(metrics)["kotak_good"] == 1
    found = samples(metrics)
    assert found["kotak_metrics_failed_reads_total"] == 3
    assert not {"kotak_broken", "kotak_nothing", "kotak_unlabelled"} & set(found)


def test_a_label_that_grows_without_end_is_left_out() -> None:
    metrics = Metrics()
    grown = {str(n): 1.0 for n in range(LABEL_VALUES_MAX + 1)}
    metrics.gauge("kotak_grown", "From outside", lambda: grown, label="kind")
    assert not any(name.startswith("kotak_grown") for name in samples(metrics))
    del grown["0"]
    assert samples(metrics)["kotak_grown[1]"] == 1


@pytest.mark.parametrize("label", ["user", "token", "address", "to"])
def test_no_label_may_hold_what_people_chose(label: str) -> None:
    with pytest.raises(ValueError, match="label"):
        Metrics().gauge("kotak_sessions", "Sessions", dict, label=label)


@pytest.mark.parametrize("name", ["messages", "kotak_", "kotak_A", "kotak_a b", "kotak_twice"])
def test_a_name_must_be_ours_and_new(name: str) -> None:
    metrics = Metrics()
    metrics.gauge("kotak_twice", "First", lambda: 0)
    with pytest.raises(ValueError, match="taken, or is not"):
        metrics.gauge(name, "Second", lambda: 0)


def test_a_label_value_cannot_break_out_of_its_line() -> None:
    metrics = Metrics()
    metrics.gauge("kotak_odd", "Odd", lambda: {'a"} 1\nkotak_forged 1': 2.0}, label="kind")
    assert "kotak_forged" not in samples(metrics)


def test_two_pages_in_one_process_do_not_mix() -> None:
    one, two = Metrics(), Metrics()
    one.gauge("kotak_one", "One", lambda: 1)
    assert "kotak_one" not in samples(two)


def test_the_content_type_is_the_one_that_prometheus_negotiates() -> None:
    assert Metrics().exposition()[1].startswith("text/plain; version=")
