"""The report page: one file, nothing loaded, the numbers of the summary."""

import html
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.builders import a_configuration, a_plan, a_point, a_score, an_outcome
from tests.studies import (
    ENDINGS,
    Ending,
    deploy,
    inconclusive,
)
from tuner import record
from tuner.engineview import EngineView
from tuner.finalruns import FinalistRun
from tuner.fluidity import Fluidity
from tuner.health import Health
from tuner.report import write_report
from tuner.report.dots import load_dots, rivals, search_dots
from tuner.report.page import page as render
from tuner.report.study import Cast, Study
from tuner.requestlog import ClientHealth
from tuner.target import ClosedLoop, OpenLoop
from tuner.wording.inside import efficiency

VOID = {"meta", "link", "input", "br", "hr", "img"}


def page(ending: Ending, folder: Path) -> str:
    return write_report(folder, *ending).read_text(encoding="utf-8")


@cache
def page_of(name: str) -> str:
    return render(Study(*ENDINGS[name](), values={}))


class Reader(HTMLParser):
    """Collects text, ids, links, and tags that were closed in the wrong order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids += [values["id"]] if values.get("id") else []
        self.links += [values[name] for name in ("href", "src") if values.get(name)]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


@pytest.mark.parametrize("name", ENDINGS)
def test_every_ending_is_a_whole_page_without_none(name):
    reader = read(page_of(name))
    assert not reader.wrong and not reader.open
    assert len(reader.ids) == len(set(reader.ids))
    assert not re.search(r"\bNone\b|\bNaN\b|\bnan\b|\binf\b|Infinity|undefined", " ".join(reader.words))
    assert {"decision", "all", "reproduce"} <= set(reader.ids)


@pytest.mark.parametrize("name", ["deploy", "nothing"])
def test_the_page_loads_nothing(name):
    text = page_of(name)
    outside = [link for link in read(text).links if not link.startswith(("#", "data:", "trials.csv"))]
    assert outside == []
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|https?://[^\"\s]+\.(js|css|woff2?)", text)
    assert set(re.findall(r"https?://[^\s\"<]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_every_link_leads_to_something_on_the_page():
    reader = read(page_of("deploy"))
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids)


def test_the_page_holds_the_command_as_it_is():
    summary, text = deploy()[0], page_of("deploy")
    shown = re.search(r"<pre[^>]*><code>(.*?)</code></pre>", text, re.DOTALL)
    assert shown is not None
    assert tuple(html.unescape(shown[1]).replace("\\\n", "").split()) == summary.best.command


def test_the_numbers_are_those_of_the_summary():
    words = " ".join(read(page_of("deploy")).words)
    for text in ("7.22 ±0.20", "5.66 ±0.16", "28 % more requests", "+23 … +32 %", "99.30 %", "$0.74", "$0.95", "934"):
        assert text in words


def test_the_same_study_gives_the_same_bytes_in_its_folder(tmp_path):
    assert page(deploy(), tmp_path) == page_of("deploy")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_large_study_stays_below_one_mebibyte(tmp_path):
    summary, _, plan = deploy()
    many = [an_outcome(number, a_configuration(token_budget=128 + number)) for number in range(200)]
    assert len(page((summary, many, plan), tmp_path).encode()) < 2**20


def test_forty_trials_of_seven_probes_stay_below_300_kibibytes(tmp_path):
    summary, _, plan = deploy()
    probes = tuple(a_score(float(rate)) for rate in range(1, 8))
    trials = [an_outcome(number, a_configuration(token_budget=128 + number), probes=probes) for number in range(40)]
    assert len(page((summary, trials, plan), tmp_path).encode()) < 300 * 2**10


@pytest.mark.parametrize(
    "name, sections",
    [
        ("deploy", {"load", "speed", "search"}),
        ("nothing", {"load", "speed", "search"}),
        ("one_trial", {"load", "speed", "search"}),
        ("all_infeasible", set()),
    ],
)
def test_a_section_without_anything_to_show_is_left_out(name, sections):
    found = set(read(page_of(name)).ids) & {"sure", "load", "speed", "search"}
    assert found == sections


def test_what_the_engine_said_of_itself_is_a_table_of_the_trials_that_it_said_it_of():
    summary, (default, miss, *others), plan = deploy()
    view = EngineView(scrapes=90, running=31.5, waiting=0.0, kv_peak_frac=0.71, step_tokens=2048.0, queue_p50_s=0.004)
    health = Health(ClientHealth(0.001, 0.2, 0.4, 2, 0.3), 8, 8, 8, reusable_frac=0.25, cached_frac=0.24)
    default = replace(default, best=a_score(engine=view, health=health))
    text = render(Study(summary, [default, miss, *others], plan, values={}))
    section = text[text.index('id="engine"') : text.index('id="all"')]
    cells = re.findall(r"<t[dh](?: [^>]*)?>(.*?)</t[dh]>", section)
    headings, rows = cells[:9], cells[9:]
    assert headings == [
        "id", "configuration", "running", "waiting", "median wait", "tokens per step", "batching efficiency",
        "KV cache, peak", "hits designed",
    ]  # fmt: skip
    assert rows == ["t0, default", "(engine default)", "32", "0", "4.00 ms", "2,050", "25.0 %", "71.0 %", "25.0 %"]


@pytest.mark.parametrize(
    ("knobs", "step_tokens", "expected"),
    [
        ({"token_budget": 8192}, 2048.0, 0.25),
        ({"token_budget": -1}, 2048.0, None),
        ({}, 2048.0, None),
        ({"token_budget": 8192}, None, None),
    ],
)
def test_batching_efficiency_needs_a_budget_and_a_batch(knobs, step_tokens, expected):
    assert efficiency(EngineView(step_tokens=step_tokens), knobs) == expected


def test_fluidity_stands_beside_what_is_compared_and_is_explained():
    summary, outcomes, plan = deploy()
    assert "fluid token rate" not in page_of("deploy")
    best = a_point(fluidity=Fluidity(0.9998, 1.0, 70.07))
    page = render(Study(replace(summary, best=best), outcomes, plan, {}))
    text = " ".join(" ".join(read(page).words).split())
    assert "fluidity index 99.98 %" in text
    assert "answers of index ≥ 90 % 100 %" in text
    assert "fluid token rate, tok/s per user 70.1" in text
    assert "Fluidity (Etalon): the first token of an answer is due within 200 ms, each other one 50 ms" in text


def test_fresh_runs_of_the_finalists_are_drawn(tmp_path):
    for replicate in range(3):
        for trial, rate in ((0, 7.0), (0, 7.35), (21, 7.0), (21, 7.35)):
            score = a_score(rate, 0.995 if rate == 7.0 else 0.98)
            record.append_run(tmp_path, FinalistRun(trial, replicate, rate, score))
    text = page(deploy(), tmp_path)
    assert "How sure are we?" in text
    assert "on fresh seed 3 of 3" in text


@pytest.mark.parametrize(
    "name, words",
    [
        ("deploy", "Deploy t21"),
        ("keep_default", "Keep the default"),
        ("inconclusive", "Inconclusive"),
        ("nothing", "0 of 2 configurations keep 99 %"),
        ("deploy_without_default", "the default was not seen to hold it"),
        ("all_infeasible", "2 out of memory"),
    ],
)
def test_each_ending_has_its_own_words(name, words):
    assert words in " ".join(read(page_of(name)).words)


def test_only_a_verdict_to_deploy_calls_a_trial_deploy():
    summary, outcomes, plan = deploy()
    assert Study(summary, outcomes, plan, {}).cast.name(21) == "t21, deploy"
    summary, outcomes, plan = inconclusive()
    assert Study(summary, outcomes, plan, {}).cast.name(21) == "t21, best"


def test_a_failure_is_shown_with_the_line_of_its_log():
    text = page_of("deploy")
    assert "✕ out of memory" in text
    assert "torch.OutOfMemoryError" in text


def test_names_from_outside_are_escaped(tmp_path):
    summary, outcomes, plan = ENDINGS["all_infeasible"]()
    hostile = replace(plan, model=plan.model.model_copy(update={"title": "<script>alert(1)</script>"}))
    assert "<script>alert" not in page((summary, outcomes, hostile), tmp_path)


NOBODY = Cast(None, None, "best")


def test_a_closed_loop_study_is_drawn_over_users_and_others_over_their_open_probes():
    users = a_score(load=ClosedLoop(32))
    agent = an_outcome(5, probes=(users, a_score(load=OpenLoop(3.0))), best=users)
    assert [dot.x for dot in load_dots(agent, NOBODY, a_plan())] == [32]
    chat = an_outcome(5, probes=(users, a_score(3.0)))
    assert [dot.x for dot in load_dots(chat, NOBODY, a_plan())] == [3.0]


def test_loads_are_per_gpu():
    outcome = an_outcome(5, a_configuration(tp=4), probes=(a_score(12.0),))
    assert [dot.x for dot in load_dots(outcome, NOBODY, a_plan())] == [3.0]


def test_the_search_is_drawn_over_gpu_hours_in_order():
    outcomes = [an_outcome(number, a_configuration(tp=2)) for number in (1, 0)]
    dots = search_dots(outcomes, NOBODY, a_plan(), by_attainment=False)
    assert [dot.trial for dot in dots] == [0, 1]
    assert dots[1].x == pytest.approx(2 * 2 * 458 / 3600)


def test_rivals_are_the_best_beside_the_leading_trials():
    outcomes = [an_outcome(number, value_rps_per_gpu=float(number)) for number in range(6)]
    cast = Cast(5, 0, "deploy")
    assert [outcome.trial for outcome in rivals(outcomes, cast, 2)] == [4, 3]


def test_a_point_without_a_price_shows_no_dollars(tmp_path):
    summary, outcomes, plan = deploy()
    free = plan.box.gpu.model_copy(update={"dollars_per_hour": None})
    text = page((summary, outcomes, replace(plan, box=replace(plan.box, gpu=free))), tmp_path)
    assert "$" not in " ".join(read(text).words)


def test_an_unseen_percentile_is_a_dash(tmp_path):
    blind = a_point(ttft_s=None, itl_s=None, tpot_s=None)
    summary, outcomes, plan = deploy()
    assert "TTFT p99 — of 200 ms" in page((replace(summary, best=blind), outcomes, plan), tmp_path)


def test_a_simulation_says_where_its_step_times_are_from_and_what_starting_takes(tmp_path):
    summary, outcomes, plan = deploy()
    virtual = replace(plan, box=replace(plan.box, simulation="virtual"))
    assert re.search(
        r"step times from [^;]*; \+\d\.\d ms per step, start \d+ s", page((summary, outcomes, virtual), tmp_path)
    )
    assert "ms per step" not in page(
        (summary, outcomes, replace(plan, box=replace(plan.box, simulation=None))), tmp_path
    )
