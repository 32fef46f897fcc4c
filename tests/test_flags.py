import stat
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from launchers.engines import ENGINES
from launchers.flags import Installed, fitted, flags_in, installed, refuse_unknown, unknown_flags, usable_part
from tests.builders import an_engine
from tuner.config.engine import Knob
from tuner.errors import ConfigError, EngineMissing

VLLM = ENGINES["vllm"]
WHY = "A sentence that is long enough to count as a reason."
HELP = """\
usage: vllm serve [model_tag] [options]

options:
  --api-server-count API_SERVER_COUNT, -asc API_SERVER_COUNT
                        How many API server processes to run, unlike
                        --never-a-flag, which stands in an explanation.
  --enable-prefix-caching, --no-enable-prefix-caching
                        Cache prefixes. (default: True)
  --max-num-seqs MAX_NUM_SEQS   On the same line as --not-this.
  -h, --help            show this help message and exit
"""
KNOWN = flags_in(HELP)


def an_engine_that_says(folder: Path, code: str) -> Path:
    executable = folder / "vllm"
    executable.write_text(f"#!{sys.executable}\n{code}\n")
    executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
    return executable


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_flags_are_read_from_the_lines_that_define_them():
    assert sorted(KNOWN) == [
        "--api-server-count",
        "--enable-prefix-caching",
        "--help",
        "--max-num-seqs",
        "--no-enable-prefix-caching",
        "-asc",
        "-h",
    ]


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        pytest.param("  --enable-x, --no-enable-x", {"--enable-x", "--no-enable-x"}, id="argparse"),
        pytest.param(
            "  --enable-x, --disable-x", {"--enable-x", "--disable-x", "--no-enable-x"}, id="vLLM since 0.33"
        ),
        pytest.param("  --max_batch_size INTEGER  Maximum of --that.", {"--max_batch_size"}, id="click"),
        pytest.param("      --model-id <MODEL_ID>", {"--model-id"}, id="clap"),
        pytest.param("  -p, --port <PORT>", {"-p", "--port"}, id="clap, with a short name"),
        pytest.param("          Like `--num-shard`, but", set(), id="an explanation"),
    ],
)
def test_the_help_of_every_kind_of_parser_can_be_read(line, flags):
    assert flags_in(f"Options:\n{line}\n") == flags


@pytest.mark.parametrize(
    ("words", "unknown"),
    [
        pytest.param(["--max-num-seqs", "-1"], (), id="a negative number is no flag"),
        pytest.param(["--max_num_seqs=8"], (), id="underscores and = are allowed"),
        pytest.param(["--api-server-count.x", "1"], (), id="a key of a JSON flag"),
        pytest.param(["--swap-space", "4", "--nope=1"], ("--swap-space", "--nope"), id="in their order"),
    ],
)
def test_unknown_flags_are_named(words, unknown):
    assert unknown_flags(words, KNOWN) == unknown


def test_a_range_whose_flag_is_unknown_is_not_usable():
    known = Knob(why=WHY, flag="--max-num-seqs", range=(1, 8), default=1)
    unknown = Knob(why=WHY, flag="--swap-space", range=(1, 8), default=1)
    assert usable_part(known, KNOWN) == (known, ())
    assert usable_part(unknown, KNOWN) == (None, ("--swap-space",))


def test_choices_lose_only_what_the_engine_does_not_know():
    def a_knob(**choices: list[str]) -> Knob:
        return Knob(why=WHY, choices=choices, default="off")

    whole = a_knob(off=[], on=["--enable-prefix-caching"])
    assert usable_part(whole, KNOWN) == (whole, ())
    part, lacking = usable_part(a_knob(off=[], on=["--enable-prefix-caching"], more=["--nope"]), KNOWN)
    assert part == whole
    assert lacking == ("--nope",)
    assert usable_part(a_knob(off=[], more=["--nope"]), KNOWN) == (None, ("--nope",))


def test_a_knob_whose_default_is_unknown_is_not_usable():
    choices = {"on": ["--nope"], "off": ["--no-enable-prefix-caching"], "auto": []}
    assert usable_part(Knob(why=WHY, choices=choices, default="on"), KNOWN) == (None, ("--nope",))


def test_a_search_space_is_fitted_to_the_installed_engine_with_a_note_for_what_is_dropped():
    def a_choice(flag: str) -> Knob:
        return Knob(why=WHY, choices={"off": [], "on": [flag]}, default="off")

    knobs = {"caching": a_choice("--enable-prefix-caching"), "swap": a_choice("--swap-space")}
    spec, notes = fitted(an_engine(knobs=knobs), Installed(Path("vllm"), "0.32", KNOWN))
    assert list(spec.knobs) == ["caching"]
    assert notes == ("swap is left out: vLLM 0.32 has no --swap-space",)


def test_a_condition_on_a_knob_that_is_dropped_is_judged_by_what_the_engine_does_without_it():
    """Not even the default configuration could be made of such a space: no value of `swap` is known."""
    swap = Knob(why=WHY, choices={"off": [], "on": ["--swap-space"]}, default="off")
    beside_swap = Knob(why=WHY, flag="--max-num-seqs", range=(1, 8), default=1, when={"swap": ["on"]})
    without_swap = Knob(why=WHY, flag="--api-server-count", range=(1, 8), default=1, when={"swap": ["off"]})
    knobs = {"swap": swap, "beside": beside_swap, "without": without_swap}
    spec, notes = fitted(an_engine(knobs=knobs), Installed(Path("vllm"), "0.32", KNOWN))
    assert list(spec.knobs) == ["without"] and spec.knobs["without"].when == {}
    assert notes == ("swap is left out: vLLM 0.32 has no --swap-space", "beside is left out: what it goes with is")


def test_a_knob_of_other_versions_is_dropped_even_where_its_flag_is_there():
    """An engine may take a flag for years before it takes the value."""
    knob = Knob(why=WHY, choices={"off": [], "on": ["--enable-prefix-caching"]}, default="off", since="0.40")
    spec, notes = fitted(an_engine(knobs={"caching": knob}), Installed(Path("vllm"), "0.32", KNOWN))
    assert spec.knobs == {}
    assert notes == ("caching is left out: vLLM 0.32 is not of its versions, 0.40 and later",)


def test_underscores_in_an_engines_own_flags_are_dashes_too():
    assert unknown_flags(["--max_batch_size", "8", "--max-batch-size=8"], frozenset({"--max_batch_size"})) == ()


def test_a_flag_the_user_sets_must_be_one_of_the_engines():
    engine = Installed(Path("bin/vllm"), "0.32", KNOWN)
    refuse_unknown(["--max-num-seqs", "8"], engine)
    with pytest.raises(ConfigError, match=r"--set max-num-seq: bin/vllm 0.32 has no .*did you mean '--max-num-seqs'"):
        refuse_unknown(["--max-num-seq", "8"], engine)


def test_help_is_asked_once_and_again_after_an_upgrade(tmp_path):
    asked = tmp_path / "asked"
    code = f"open({str(asked)!r}, 'a').write('x')\nprint({HELP!r})"
    executable = an_engine_that_says(tmp_path, code)
    assert installed(VLLM, executable).flags == KNOWN
    assert installed(VLLM, executable).flags == KNOWN
    assert asked.read_text() == "x"
    an_engine_that_says(tmp_path, code + "\nprint('  --new')")
    assert installed(VLLM, executable).flags == KNOWN | {"--new"}


def test_where_nothing_can_be_remembered_help_is_asked_each_time(tmp_path, monkeypatch):
    (tmp_path / "no-folder").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-folder"))
    executable = an_engine_that_says(tmp_path, f"print({HELP!r})")
    assert installed(VLLM, executable).flags == KNOWN
    assert installed(VLLM, executable).flags == KNOWN


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        pytest.param("import sys; sys.exit('no torch here')", "exit code 1: no torch here", id="it fails"),
        pytest.param("print('hello')", "names no flags", id="it is something else"),
    ],
)
def test_an_engine_that_does_not_explain_itself_is_missing(tmp_path, code, complaint):
    with pytest.raises(EngineMissing, match=complaint):
        installed(VLLM, an_engine_that_says(tmp_path, code))


def test_the_version_is_that_of_the_package_beside_the_executable(tmp_path):
    executable = an_engine_that_says(tmp_path, f"print({HELP!r})")
    assert installed(replace(VLLM, distribution="pytest"), executable).version == version("pytest")
    assert installed(replace(VLLM, distribution="goodtune-no-such-package"), executable).version == ""
