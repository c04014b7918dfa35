"""The command rljax and its scripts: help without a device, settings that are listed, readers that stop reading."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import rljax
import rljax.__main__ as rljax_main
from rljax.errors import UserError
from rljax.training import command_line, config_listing

SHORT = "--config=configs/shop.py:short"


NO_DEVICES = {"JAX_PLATFORMS": "no_such_platform"}  # JAX fails as soon as anything asks for a device


def rljax_command(*argv):
    command = [sys.executable, "-m", "rljax", *argv]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | NO_DEVICES)


def test_help_lists_every_script_with_what_it_does():
    done = rljax_command("--help")
    assert done.returncode == 0 and done.stderr == ""
    listed = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  ")]
    said = {words[0]: words[1] for words in listed if len(words) == 2}
    for script in (p.stem for p in Path("experiments").glob("*.py") if p.stem != "__init__"):
        assert len(said[script.replace("_", "-")]) > 20
    assert rljax_command().stdout == done.stdout


@pytest.mark.parametrize("script", sorted(p.stem for p in Path("experiments").glob("*.py") if p.stem != "__init__"))
def test_the_help_of_a_script_says_its_purpose_and_its_flags_without_starting_jax(script, monkeypatch, capsys):
    module = importlib.import_module(f"rljax.experiments.{script}")
    monkeypatch.setattr(sys, "argv", [f"rljax {script}", "--help"])
    monkeypatch.setattr(jax, "devices", None)
    module.main()
    said = capsys.readouterr().out
    assert said.startswith((module.__doc__ or "").strip().splitlines()[0])
    purpose, usage, _ = said.partition(f"usage: rljax {script}")
    assert usage, "a usage"
    assert re.search(rf"^ *rljax {script.replace('_', '-')} ", purpose, re.MULTILINE), "an example"
    assert "flags:" in said or "  --config=" in said


def test_help_needs_no_device_and_ends_with_status_0():
    done = rljax_command("sample", "--help")
    assert done.returncode == 0, done.stderr
    assert "--attempts=15" in done.stdout and "--temperature=0.6" in done.stdout


def run_without_reader(*argv) -> subprocess.CompletedProcess:
    """Python with a standard output that nobody reads any longer."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, *argv], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    return done


@pytest.mark.parametrize("command", ["-m rljax --help", "-m experiments.rl --help"])
def test_help_whose_reader_stops_reading_ends_quietly(command):
    done = run_without_reader(*command.split())
    assert done.returncode == 0 and done.stderr == ""


def test_a_run_whose_reader_stops_reading_ends_quietly_and_another_broken_pipe_keeps_its_traceback():
    code = "from rljax.training.command_line import one_line_errors\nwith one_line_errors(): print('x' * 200_000)"
    closed = run_without_reader("-c", code)
    assert closed.returncode == command_line.CLOSED_STDOUT and closed.stderr == ""
    with pytest.raises(BrokenPipeError), command_line.one_line_errors():  # here the output is read
        raise BrokenPipeError


def test_the_command_rljax_runs_a_script_and_names_an_unknown_one():
    with pytest.raises(SystemExit, match="^error: there is no command 'evaluat'; did you mean evaluate?"):
        rljax_main.main(["rljax", "evaluat"])
    done = rljax_command("evaluate", "--workdir=nowhere")
    assert done.returncode == 1 and "no run in nowhere" in done.stderr and "Traceback" not in done.stderr
    assert rljax_command("--version").stdout == f"rljax {rljax.__version__}\n"


def test_the_settings_of_a_config_are_listed_and_searched(capsys):
    config_listing.main(["shop", "--grep", "LENGTH"])
    lines = capsys.readouterr().out.splitlines()
    assert all("length" in line.lower() for line in lines)
    values = {line.split()[0]: line.split()[2] for line in lines}
    assert (values["model.max_length"], values["rl.max_new_tokens"]) == ("192", "160"), "found by its key, by its help"
    config_listing.main(["shop:short"])
    assert any(line.startswith("rl.steps ") and "= 4" in line for line in capsys.readouterr().out.splitlines())
    config_listing.main([])
    assert "ablations/selection" in capsys.readouterr().out
    with pytest.raises(UserError, match="no regular expression"):
        config_listing.main(["shop", "--grep", "("])
    with pytest.raises(SystemExit, match="^error: .*did you mean shop?"):
        rljax_main.main(["rljax", "config", "shpo"])


def test_a_stage_without_the_one_before_it_says_what_to_run(tmp_path):
    command = [sys.executable, "-m", "experiments.rl", SHORT, f"--workdir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "run `rljax sft` with this config first" in done.stderr and "Traceback" not in done.stderr
