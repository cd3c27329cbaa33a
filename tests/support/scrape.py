# SPDX-License-Identifier: Apache-2.0
"""Reads an agent's metrics as Prometheus does, by the reader of its Python client."""

import urllib.request

PATIENCE = 30  # seconds; nothing here takes one


def samples(text):
    """{(name, ((label, value), ...)): value}; an error if the text is not what the format asks for."""
    from prometheus_client.parser import text_string_to_metric_families  # Debian: python3-prometheus-client
    read = {}
    for family in text_string_to_metric_families(text):
        if family.type == "unknown" or not family.documentation:
            raise AssertionError(f"{family.name} has no type or no help")
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            if key in read:
                raise AssertionError(f"{key} is there twice")
            read[key] = sample.value
    return read


def scrape(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return samples(answer.read().decode())


def requests(read):
    """{(namespace, syscall, status): count} of the request durations, and checks what a histogram promises."""
    name = "seccompagent_request_duration_seconds"
    counts = {}
    for (sample, its_labels), value in read.items():
        if sample != name + "_count":
            continue
        wanted = dict(its_labels)
        counts[wanted["namespace"], wanted["syscall"], wanted["status"]] = value
        buckets = sorted((float(dict(key)["le"]), count) for (what, key), count in read.items()
                         if what == name + "_bucket" and {k: v for k, v in key if k != "le"} == wanted)
        if [count for _, count in buckets] != sorted(count for _, count in buckets):
            raise AssertionError(f"buckets that do not grow: {wanted} {buckets}")
        if buckets[-1] != (float("inf"), value) or not {0.05, 0.2, 1.0} <= {bound for bound, _ in buckets}:
            raise AssertionError(f"buckets that are not all there: {wanted} {buckets}")
    return counts
