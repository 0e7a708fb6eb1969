"""Start-up of the program: quick answers, which import no heavy library and appear once on any number of ranks."""

import subprocess
import sys

import pytest
from support.program import start, user_environment

from hpc_saidpo import __version__

pytestmark = pytest.mark.e2e
HEAVY = {"torch", "transformers", "sklearn", "h5py", "matplotlib", "scipy", "sentence_transformers", "peft", "vllm"}
# The program, which prints the heavy libraries that it has imported when it ends.
WATCHED = (
    "import atexit, runpy, sys\n"
    f"heavy = {HEAVY}\n"
    "atexit.register(lambda: print('imported:', *sorted(heavy & sys.modules.keys()), '.'))\n"
    "runpy.run_module('hpc_saidpo', run_name='__main__')\n"
)
ANSWERS = {
    "a misspelt key": (("sampler.alhpa=2",), 2, "unknown key 'sampler.alhpa'; did you mean 'sampler.alpha'?"),
    "a wrong value": (("experiment=tiny", "rollouts.k=1"), 2, "rollouts.k: Input should be greater than or equal to 2"),
    "a wrong type": (("experiment=tiny", "dpo.lr=high"), 2, "dpo.lr: Input should be a valid number"),
    "nothing": ((), 2, "must be given: policy.path, pool.path"),
    "no such file of a group": (("pool=nothing",), 2, "Could not find 'pool/nothing'"),
    "a misspelt verb": (("verfy",), 2, "did you mean 'verify'?"),
    "help": (("--help",), 0, "Verbs, each with an example:"),
    "help on a verb": (("evaluate", "--help"), 0, "Groups and their settings"),
    "help on status": (("status", "--help"), 0, "Look at the runs under one root"),
    "no runs": (("status", "/usr/lib"), 2, "no run in it"),
    "the version": (("--version",), 0, f"hpc_saidpo {__version__}\n"),
}


@pytest.mark.parametrize("arguments, code, says", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_imports_nothing_heavy(arguments, code, says):
    done = start(*arguments, program=("-c", WATCHED))
    assert done.returncode == code, done.stderr
    assert (done.stderr + done.stdout).count(says) == 1 and "Traceback" not in done.stderr
    assert done.stdout.endswith("imported: .\n")


@pytest.mark.parametrize("name", ["a misspelt key", "a wrong value", "a misspelt verb", "help", "the version"])
def test_on_two_ranks_an_answer_appears_once(name):
    arguments, code, says = ANSWERS[name]
    done = start(*arguments, ranks=2, is_warm=False)
    assert done.returncode == code, done.stderr
    assert (done.stderr + done.stdout).count(says) == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["hpc_saidpo.settings", "hpc_saidpo.settings.whole", "hpc_saidpo.settings.keys"])
def test_settings_import_nothing_heavy(module):
    program = f"import sys, {module}; print(sorted({HEAVY | {'numpy', 'hydra', 'mpi4py'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], env=user_environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
