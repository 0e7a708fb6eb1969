"""The command line, called in this process: help texts, the version, unknown verbs."""

import importlib
import sys

import pytest

from hpc_saidpo import __version__
from hpc_saidpo.cli import help as help_texts
from hpc_saidpo.cli.main import main
from hpc_saidpo.parallel import launched, stop
from hpc_saidpo.settings.keys import conf_folder, fields_at

VERBS = list(help_texts.VERBS)


def text_of(capsys, *arguments):
    """What the command line prints; argparse shows help through SystemExit."""
    try:
        assert main(arguments) == 0
    except SystemExit as ended:
        assert ended.code == 0
    return capsys.readouterr().out


def widest(text):
    """The longest line but those with a path of this machine, which no wrapping can shorten."""
    return max((line for line in text.splitlines() if str(conf_folder()) not in line), key=len)


def test_the_overview_has_every_verb_with_an_example(capsys, monkeypatch):
    text = text_of(capsys, "--help")
    assert len(widest(text)) <= help_texts.WIDTH, widest(text)
    lines = text.splitlines()
    for verb in VERBS:
        (row,) = (i for i, line in enumerate(lines) if line.split()[:1] == [verb])
        example = lines[row + 1].split()
        assert example[0] == "hpc-saidpo" and example[1] in (verb, "experiment=tiny")
    assert "An override is KEY=VALUE" in text and "hpc-saidpo VERB --help" in text
    assert text_of(capsys, "-h") == text_of(capsys, "help") == text
    monkeypatch.setattr(sys, "argv", ["hpc-saidpo", "--help"])
    assert main() == 0 and capsys.readouterr().out == text


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_its_arguments(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(help_texts.WIDTH))
    text = text_of(capsys, verb, "--help")
    assert len(widest(text)) <= help_texts.WIDTH, widest(text)
    assert text.startswith(f"usage: hpc-saidpo {verb} ")
    example = help_texts.VERBS[verb][1]
    assert text.count("    hpc-saidpo ") or text.count("    mpiexec ") or text.count("    srun "), example


@pytest.mark.parametrize("verb", ["run", "evaluate"])
def test_help_on_overrides_has_every_setting(verb, capsys):
    words = text_of(capsys, verb, "-h").split()
    for group in fields_at([]):
        assert group in words and set(fields_at([group])) <= set(words)
    assert {"tiny", "smollm2", "lora", "few_shot"} <= set(words)


def test_the_version(capsys):
    assert text_of(capsys, "--version") == text_of(capsys, "-V") == f"hpc_saidpo {__version__}\n"


@pytest.mark.parametrize(
    "word, near", [("verfy", "verify"), ("explian", "explain"), ("compares", "compare"), ("quux", None)]
)
def test_an_unknown_verb_is_answered_with_the_nearest(word, near, capsys):
    assert main([word, "runs/demo"]) == 2
    said = capsys.readouterr()
    assert not said.out and said.err.startswith(f"hpc_saidpo: {word!r} is neither a verb nor an override (KEY=VALUE)")
    assert (f"did you mean {near!r}?" in said.err) == bool(near) == ("did you mean" in said.err)
    assert f"Verbs: {', '.join(VERBS)}. " in said.err


def test_a_word_after_an_override_is_no_verb(monkeypatch):
    """Only the first word is a verb; options of Hydra may come before overrides."""
    called = []
    monkeypatch.setattr(stop.REQUEST, "listen_from_start", lambda is_rank: None)  # not in the process of the tests
    monkeypatch.setattr("hpc_saidpo.cli.run.main", lambda arguments: called.append(list(arguments)) or 0)
    assert main(["-m", "experiment=tiny"]) == main(["run", "experiment=tiny"]) == main([]) == 0
    assert called == [["-m", "experiment=tiny"], ["experiment=tiny"], []]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_module_with_a_main(verb):
    assert callable(importlib.import_module(f"hpc_saidpo.cli.{verb}").main)


@pytest.mark.parametrize("name", launched.RANKS)
def test_of_many_processes_the_first_one_shows_a_text(name, capsys, monkeypatch):
    for other in launched.RANKS:
        monkeypatch.delenv(other, raising=False)
    for rank in "0", "1":
        monkeypatch.setenv(name, rank)
        help_texts.show("text")
    assert capsys.readouterr().out == "text\n"


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("explain", "runs/none", "--iteration", "0", "--question", "q"), "explain: "),
        (("show", "runs/none"), "show: runs/none is no run folder"),
        (("export", "runs/none", "--what", "pairs", "--format", "jsonl"), "export: "),
        (("verify", "runs/none"), "verify: runs/none is no run folder"),
        (("compare", "runs/none"), "compare: runs/none"),
        (("grade", "none.jsonl"), "grade: "),
        (("clusters", "--n", "2", "experiment=tiny", "clusters.nn=3"), "clusters: unknown key 'clusters.nn'"),
    ],
)
def test_a_verbs_wrong_input_is_one_message(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith(says) and not said.out and "Traceback" not in said.err
