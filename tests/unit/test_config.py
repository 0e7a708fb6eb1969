"""conf/ and the settings: every file composes, keys equal fields, wrong keys and values have a clear message."""

import dataclasses
import re
import subprocess
import typing

import hydra
import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from support.program import jobs_of

from hpc_saidpo import records, settings
from hpc_saidpo.cli import compose, program
from hpc_saidpo.errors import RunError
from hpc_saidpo.names import fault_of
from hpc_saidpo.prepare import early_decision_warnings
from hpc_saidpo.settings import whole
from hpc_saidpo.settings.keys import conf_folder

CONF = conf_folder()
GROUPS = [f.name for f in dataclasses.fields(whole.Settings)]
POOLS = {"files": settings.Files, "arithmetic": settings.Arithmetic, "reasoning_gym": settings.ReasoningGym}
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides=list(overrides))


def built(*overrides):
    given = ("pool.path=p.jsonl", "policy.path=m")
    return compose.build(composed(*given, *overrides))[0]


def test_the_fixed_names():
    config = built("run.root=r", "run.name=n", "run.seed=3", "sampler.rule=uniform", "difficulty.order=[tokens]",
                   "evaluate.benchmarks=[held_out,b.jsonl]")  # fmt: skip
    assert (config.run.root, config.run.name, config.run.seed, config.run.deterministic) == ("r", "n", 3, False)
    assert config.loop.iterations and config.clusters.n and config.probe.fraction
    assert config.rollouts.k and config.rollouts.temperature and config.rollouts.max_new_tokens
    assert config.difficulty.order == ("tokens",) and config.sampler.rule == "uniform" and config.sampler.n_questions
    assert config.pairs.per_question and config.policy.path == "m" and config.pool.path == "p.jsonl"
    assert config.dpo.beta and config.dpo.lr and config.dpo.epochs and config.dpo.batch_pairs
    assert config.evaluate.benchmarks == ("held_out", "b.jsonl")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes(experiment):
    text = composed(f"experiment={experiment}")
    missing = OmegaConf.missing_keys(text)
    assert missing <= {"pool.path", "policy.path", "evaluate.benchmarks"}
    compose.build(composed(f"experiment={experiment}", *(f"{key}=given" for key in missing - {"evaluate.benchmarks"})))


SWEPT = {
    "clusters": [("clusters", "n", {50, 100, 150, 200, 250})],
    "clusters_small": [("clusters", "n", {4, 8, 12, 16, 20})],
    "probe": [("probe", "fraction", {0.005, 0.01, 0.02, 0.05})],
    "rollouts": [("rollouts", "k", {4, 8, 16})],
    "proxies": [("difficulty", "order", {("pass_rate", "steps", "tokens"), ("steps",), ("tokens",), ("seconds",)})],
    "systems": [
        ("sampler", "rule", {"frontier_error", "error", "error_all", "frontier", "uniform"}),
        ("clusters", "n", {1, 12}),
        ("sampler", "alpha", {1.0, 3.0}),
    ],
}


@pytest.mark.parametrize("sweep", sorted(path.stem for path in (CONF / "sweep").glob("*.yaml")))
def test_every_sweep_composes(sweep):
    assert {word for job in jobs_of(sweep) for word in job if "seed" in word} == {f"run.seed={s}" for s in range(3)}
    jobs = [compose.build(composed("experiment=tiny", *job))[0] for job in jobs_of(sweep, "run.seed=0")]
    assert len({repr(job) for job in jobs}) == len(jobs)  # no two are the same run
    for group, key, values in SWEPT[sweep]:
        assert {getattr(getattr(job, group), key) for job in jobs} == values


def test_a_sweeps_values_can_be_changed_on_the_command_line():
    jobs = [compose.build(composed("experiment=tiny", *job))[0] for job in jobs_of(
        "probe", "run.seed=7,8", "probe.fraction=0.1", "rollouts.k=4")]  # fmt: skip
    assert [(j.probe.fraction, j.run.seed, j.rollouts.k) for j in jobs] == [(0.1, 7, 4), (0.1, 8, 4)]


@pytest.mark.parametrize(
    "overrides, swept, name",
    [
        (("experiment=[tiny,idpo]", "run.seed=1"), ["run.seed=1,2"], "tiny,idpo,run.seed=1"),
        (("experiment=tiny", "run.seed=1", "rollouts.k=4"), ["run.seed=range(3)", "rollouts.k=4"], "tiny,run.seed=1"),
        (("experiment=tiny", "+experiment@_global_=frontier", "run.root=r"), ["run.root=r"], "tiny,frontier"),
        (("sweep=probe", "experiment=saidpo", "probe.fraction=0.01"), [], "saidpo,probe.fraction=0.01"),
        (("experiment=tiny", "difficulty.order=[steps,tokens]"), ["difficulty.order=[steps,tokens],[steps]"],
         "tiny,difficulty.order=_steps,tokens_"),
        (("experiment=tiny", "run.name=mine", "run.seed=1"), ["run.seed=1,2"], "mine"),
    ],
)  # fmt: skip
def test_the_name_of_a_run_of_a_multirun_says_what_varies(overrides, swept, name):
    assert name_in_multirun(overrides, swept) == name


def test_long_names_of_a_multirun_are_cut_and_differ():
    values = [f"[{'x' * 300}{end}]" for end in "ab"]
    names = {
        name_in_multirun(("experiment=tiny", f"rollouts.stop={value}"), [f"rollouts.stop={','.join(values)}"])
        for value in values
    }
    assert len(names) == 2
    for name in names:
        assert name.startswith("tiny,rollouts.stop=_xxx") and fault_of(name) == "" and len(name) == 100


def name_in_multirun(overrides, arguments):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        text = hydra.compose("config", ["hydra.mode=MULTIRUN", *overrides], return_hydra_config=True)
    try:
        HydraConfig.instance().set_config(text)
        return program.run_name(text, arguments)
    finally:
        HydraConfig.instance().cfg = None


def test_the_proxies_are_compared_where_the_order_decides():
    assert built("sweep=proxies").pairs.share == 0.5 and (built().pairs.share, built().pairs.budget) == (1.0, None)


def test_the_papers_set_ups():
    for name in ("paper_qwen7b", "paper_llama8b"):
        config = compose.build(composed(f"experiment={name}", "pool.path=p"))[0]
        assert (config.rollouts.k, config.probe.fraction, config.clusters.n) == (8, 0.01, 150)
        assert (config.dpo.lr, config.dpo.beta, config.dpo.batch_pairs) == (5e-7, 0.1, 128)
        assert config.rollouts.temperature == 1.0
    assert "Problem: {question}" in config.rollouts.prompt.question  # Llama's, as Meta evaluates it


def test_the_one_line_systems():
    published = built("experiment=saidpo")
    assert (published.sampler.rule, published.sampler.alpha, published.sampler.history) == ("error", 1.0, 0.0)
    assert published.sampler.kappa <= 0.1 and published.pairs.share == 0.5
    assert built("experiment=idpo").sampler.rule == "uniform"
    assert built("experiment=frontier").sampler.rule == "frontier"
    assert built("experiment=frontier_error").sampler.rule == "frontier_error"
    assert built("experiment=no_clusters").clusters.n == 1
    assert built("experiment=kernel").clusters.kind == "kernel" == built("experiment=frugal").clusters.kind
    assert built("experiment=frugal").rollouts.adaptive
    assert [built(f"experiment={name}").sampler.rule for name in ("lilo", "sec", "knapsack", "bots")] == [
        "variance", "deviation", "infogain", "thompson",
    ]  # fmt: skip
    alone = [built(f"experiment={name}") for name in ("mopps", "greso")]
    assert [(c.sampler.rule, c.clusters.n) for c in alone] == [("thompson", 1), ("zero_variance", 1)]
    no_difficulty = built("experiment=no_difficulty")
    assert no_difficulty.pairs.share == built("experiment=paper_qwen7b").pairs.share == 0.5
    assert no_difficulty.sampler.rule == "error_all" and no_difficulty.difficulty.order == ("random",)
    ours, default = built("experiment=frontier_error").sampler, built().sampler
    assert ours == default == settings.Sampler()
    assert (ours.rule, ours.alpha, ours.kappa, ours.history) == ("frontier_error", 3.0, 1.0, 0.8)


def test_systems_combine_with_set_ups():
    config = compose.build(composed("experiment=[tiny,idpo]"))[0]
    assert config.sampler.rule == "uniform" and config.pool.kind == "arithmetic" and config.run.deterministic


def fields_of(cls):
    return {f.name for f in dataclasses.fields(cls)}


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_yaml_keys_are_the_fields(group):
    for path in (CONF / group).glob("*.yaml"):
        values = yaml.safe_load(path.read_text())
        keys = set(values) - {"defaults"}
        cls = POOLS[values.get("kind", "files")] if group == "pool" else getattr(settings, group.capitalize())
        if path.stem in ("default", "jsonl", "arithmetic", "demo"):
            assert keys == fields_of(cls) - {"prompt", "known"}, path
        else:
            assert keys <= fields_of(cls), path


def test_yaml_keys_inside_groups_are_the_fields():
    def keys(path, *within):
        values = yaml.safe_load((CONF / path).read_text())
        for key in within:
            values = values[key]
        return set(values)

    assert keys("rollouts/default.yaml", "generate") == fields_of(settings.Engine)
    assert keys("rollouts/default.yaml", "grader") == fields_of(settings.Grader)
    assert keys("rollouts/prompt/chat.yaml") == fields_of(settings.Prompt)
    assert keys("dpo/default.yaml", "lora") == fields_of(settings.Lora)
    assert keys("pool/jsonl.yaml", "columns") == fields_of(settings.Columns)
    assert keys("pool/reasoning_gym.yaml", "settings", 0) == fields_of(settings.Task)


def test_the_default_values_of_the_settings_are_those_of_conf():
    """Code that needs only some settings, such as a test or a tool, works with the values of conf/."""
    composed_values = compose.from_overrides(["policy.path=m", "pool=arithmetic"])
    assert composed_values.pool == settings.Arithmetic()
    for group in set(GROUPS) - {"pool", "policy", "rollouts", "evaluate"}:
        assert getattr(composed_values, group) == getattr(settings, group.capitalize())(), group
    assert dataclasses.replace(composed_values.evaluate, known={}) == settings.Evaluate()
    assert dataclasses.replace(composed_values.rollouts, prompt=settings.Prompt()) == settings.Rollouts()


def test_a_run_can_stop_after_every_stage():
    hints = typing.get_type_hints(settings.Loop)["stop_after"]
    (names,) = (hint for hint in typing.get_args(hints) if hint is not type(None))
    assert typing.get_args(names) == ("prepare", "base", *records.STAGES, "evaluate")


def test_the_keys_of_an_endpoint_of_tags():
    keys = yaml.safe_load((CONF / "tags/default.yaml").read_text())["endpoint"]
    assert set(keys) == {f.name for f in dataclasses.fields(settings.Endpoint)}
    given = ("tags.mode=endpoint", "tags.model=m", "+tags.endpoint.body={temperature: null, max_completion_tokens: 96}")
    assert built(*given).tags.endpoint.body == {"temperature": None, "max_completion_tokens": 96}
    assert built("tags.mode=import", "tags.model=m", "tags.file=[a,b]").tags.files == ("a", "b")
    with pytest.raises(RunError, match="tags: mode=export needs file"):
        built("tags.mode=export", "tags.model=m")
    with pytest.raises(RunError, match=r"nothing to write: a run with clusters\.n=1"):
        built("tags.mode=export", "tags.model=m", "tags.file=a", "clusters.n=1")
    with pytest.raises(RunError, match=r"tags\.endpoint: url 'file:///etc/passwd' must begin with http"):
        built("tags.endpoint.url=file:///etc/passwd")


def test_arguments_of_the_chat_template_are_given_as_the_documentation_says():
    given = re.search(r"'(\+rollouts\.prompt\.template_args=[^']*)'", (CONF / "README.md").read_text())
    assert built("rollouts/prompt=chat", given[1]).rollouts.prompt.template_args == {"enable_thinking": False}


BENCHMARKS = ("aime24", "amc23", "math500", "gsm8k", "minerva_math", "olympiadbench", "gaokao2023en", "college_math")


def test_every_benchmark_is_known_by_the_name_of_its_file():
    known = built().evaluate.known
    assert tuple(known) == BENCHMARKS and {p.stem for p in (CONF / "benchmark").iterdir()} == set(BENCHMARKS)
    for name, benchmark in known.items():
        text = (CONF / "benchmark" / f"{name}.yaml").read_text()
        assert set(yaml.safe_load(text)) == {f.name for f in dataclasses.fields(settings.Benchmark)}
        assert all(line.startswith("#") or "# " in line for line in text.splitlines())
        assert benchmark.file == f"{name}.jsonl" and benchmark.n_questions


def test_how_a_benchmark_is_evaluated():
    config = built("evaluate.benchmarks=[held_out,math500,amc23,/my/aime24.jsonl,./own]", "evaluate.samples=4",
                   "evaluate.temperature=0.8", "evaluate.folder=/data", "evaluate.known.amc23.samples=64",
                   "evaluate.known.amc23.top_p=null", "evaluate.known.math500.file=/elsewhere/m.jsonl")  # fmt: skip
    assert config.evaluate.plan() == {
        "held_out": settings.BenchmarkPlan("", None, 4, 0.8, 1.0),
        "math500": settings.BenchmarkPlan("/elsewhere/m.jsonl", 500, 4, 0.8, 1.0),
        "amc23": settings.BenchmarkPlan("/data/amc23.jsonl", 40, 64, 0.6, 1.0),
        "aime24": settings.BenchmarkPlan("/my/aime24.jsonl", 30, 16, 0.6, 0.95),
        "own": settings.BenchmarkPlan("./own", None, 4, 0.8, 1.0),
    }
    added = built("+evaluate.known.mine.file=x.jsonl", "evaluate.benchmarks=[mine]").evaluate.plan()
    assert added == {"mine": settings.BenchmarkPlan("benchmarks/x.jsonl", None, 1, 0.0, 1.0)}


def test_an_evaluation_depends_on_nothing_else():
    text = composed("policy.path=m")
    text.pool = None
    config, plain = compose.build(text, whole.Evaluation)
    assert set(plain) == {f.name for f in dataclasses.fields(config)} and config.pool is None
    with pytest.raises(RunError, match=r"must be given: policy\.path, pool\.path"):
        compose.build(composed(), whole.Evaluation)


@pytest.mark.parametrize("path", sorted((CONF / "pool").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_pool_composes_and_names_columns_that_there_are(path):
    given = () if path.stem not in ("jsonl", "aime") else ("pool.path=p.jsonl",)
    config = compose.build(composed(f"pool={path.stem}", "policy.path=m", *given))[0]
    named = yaml.safe_load(path.read_text()).get("columns")
    fields = {f.name for f in dataclasses.fields(settings.Columns)}
    assert named is None or (set(named) == fields if path.stem == "jsonl" else set(named) <= fields)
    if path.stem == "jsonl":
        assert config.pool == settings.Files(path="p.jsonl")


EXPLAINED = [*CONF.glob("*/default.yaml"), *CONF.glob("benchmark/*.yaml"), *(CONF / "pool").glob("[aj][rs]*.yaml")]


@pytest.mark.parametrize("path", sorted(EXPLAINED), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_key_is_explained(path):
    for line in path.read_text().splitlines():
        if line and not line.strip().startswith(("#", "-", "defaults:")):
            assert "  # " in line, f"{path}: {line}"


@pytest.mark.parametrize(
    "override, says",
    [
        ("clusters.nn=5", ["'clusters.nn'", "did you mean 'clusters.n'", "encoder"]),
        ("cluster.n=5", ["'cluster'", "did you mean 'clusters'", "sampler"]),
        ("rollouts.prompt.shot=1", ["'rollouts.prompt.shot'", "did you mean 'rollouts.prompt.shots'"]),
        ("pool.pth=x", ["'pool.pth'", "'pool.path'"]),
        ("sampler.rule=error=3", ["cannot read"]),
        ("tiny", ["'tiny' is not an override (KEY=VALUE)"]),
        ("lr=1e-5", ["unknown key 'lr'; did you mean 'dpo.lr'?"]),
        ("temperature=1", ["did you mean 'rollouts.temperature' or 'evaluate.temperature'?"]),
        ("= 4", ["write no blanks around the ="]),
        ("pool.path=~/x.jsonl", ["write pool.path=", "/x.jsonl", "~ at the beginning of a word only"]),
        ("rollouts.prompt.question=Solve: {question}", ["'rollouts.prompt.question=\"Solve: {question}\"'"]),
        ("evaluate.known.gsm8k.sample=3", ["did you mean 'evaluate.known.gsm8k.samples'", "temperature"]),
    ],
)
def test_a_misspelt_key_is_refused_with_the_valid_ones(override, says):
    with pytest.raises(RunError) as error:
        compose.check_overrides([override])
    for text in says:
        assert text in str(error.value)


def test_good_overrides_pass():
    compose.check_overrides(
        ["-m", "experiment=tiny", "sweep=probe", "clusters.n=50,100",
         "pool=arithmetic", "pool.shares.hard=0.5", "+new=1",
         "hydra/launcher=basic", "hydra.sweep.dir=x",
         "rollouts/prompt=plain", "rollouts.prompt.shots=2", "--cfg", "job"]
    )  # fmt: skip


@pytest.mark.parametrize(
    "override, says",
    [
        ("clusters.n=many", "clusters.n: Input should be a valid integer"),
        ("rollouts.k=1", "rollouts.k: Input should be greater than or equal to 2 (got 1): a pair needs a right and"),
        ("probe.fraction=5", "less than or equal to 1 (got 5): it is a share of 1; 5 % is 0.05"),
        ("evaluate.benchmarks=gsm8k", "with quotation marks for the shell: 'evaluate.benchmarks=[gsm8k]'"),
        (
            "sampler.rule=best",
            "sampler.rule=best: there is no such name. Valid names: error, error_all, frontier, frontier_error, var",
        ),
        ("difficulty.order=[tokens,luck]", "difficulty.order.1: Input should be 'pass_rate'"),
        ("difficulty.too_hard=1", "too_hard (1.0) must be below too_easy"),
        ("dpo.lr=-1", "dpo.lr: Input should be greater than 0"),
        ("+dpo.gamma=1", "unknown key 'dpo.gamma'"),
        ("+pool.n=4", "unknown key 'pool.n'. Valid keys of pool: kind, path, files, columns"),
        ("pool.columns.question=null", "pool.columns.question: Input should be a valid string"),
        ("pool.path=[]", "pool.path: Tuple should have at least 1 item"),
        (
            "evaluate.benchmarks=[gsm]",
            "'gsm' in benchmarks is not the name of a benchmark. Did you mean 'gsm8k'? Names are held_out, aime24,",
        ),
        ("evaluate.benchmarks=[gsm8k,/x/gsm8k.jsonl]", "two of benchmarks are called 'gsm8k': rename one of the files"),
        ("evaluate.benchmarks=[gsm8k,gsm8k]", "two of benchmarks are called 'gsm8k'"),
        ("rollouts.steps='/(/'", "rollouts.steps: /(/ is no regular expression"),
        ("run.deterministic=perhaps", "run.deterministic: Input should be a valid boolean"),
    ],
)
def test_a_wrong_type_or_value_is_refused_by_key(override, says):
    with pytest.raises(RunError) as error:
        built(override)
    assert says in str(error.value)


def test_settings_of_two_groups_that_exclude_each_other_are_refused():
    assert built("dpo.strategy=fsdp").dpo.strategy == "fsdp"
    with pytest.raises(
        RunError, match=r"run\.deterministic=true requires .* dpo\.strategy=fsdp cannot guarantee: use ddp"
    ):
        built("dpo.strategy=fsdp", "run.deterministic=true")


def test_eight_bit_moments_in_shards_are_refused():
    assert built("dpo.optimizer=adamw_8bit", "dpo.strategy=single").dpo.optimizer == "adamw_8bit"
    with pytest.raises(RunError, match="optimizer=adamw_8bit cannot work on shards: with strategy=fsdp, set adamw"):
        built("dpo.optimizer=adamw_8bit", "dpo.strategy=fsdp")


def test_a_task_that_cannot_be_graded_is_refused():
    setting = "{name: a, task: puzzle24, tags: [games], n: 5}"
    with pytest.raises(RunError, match=r"task 'puzzle24' cannot be graded by math: many answers are right"):
        compose.build(composed("pool=reasoning_gym", "policy.path=m", f"pool.settings=[{setting}]"))
    by_scorer = ("pool.verifier=reasoning_gym", f"pool.settings=[{setting}]")
    with pytest.raises(RunError, match=r"by reasoning_gym: its scorer evaluates answers as Python"):
        compose.build(composed("pool=reasoning_gym", "policy.path=m", *by_scorer))


def test_what_must_be_given_is_named_all_at_once():
    with pytest.raises(RunError, match=r"policy\.path, pool\.path"):
        compose.build(composed())


def test_conf_lies_beside_or_inside_the_package():
    assert (CONF / "config.yaml").exists()


@pytest.mark.parametrize("key", ["stop=[{}]", "prompt.system={}", "prompt.answer={}", "prompt.separator={}"])
def test_a_line_break_that_is_none_is_refused_with_the_way_to_write_it(key):
    wrong, right = '"\\nQ:"', '"\nQ:"'  # a backslash and an n; a line break
    with pytest.raises(RunError, match=r"has a backslash and an n .* \(bash\) like \$'rollouts.stop"):
        built("rollouts." + key.format(wrong))
    config = built("rollouts." + key.format(right)).rollouts
    assert "\nQ:" in (*config.stop, config.prompt.system, config.prompt.answer, config.prompt.separator)


def test_the_way_to_write_a_line_break_on_the_command_line_is_true():
    """The shell, Hydra and the settings together: exactly the words of the message."""
    with pytest.raises(RunError) as refused:
        built("rollouts.stop=['\\n']")
    words = re.search(r"\$'rollouts\.stop=.*?\]'", str(refused.value))[0]
    printed = subprocess.run(["bash", "-c", f"printf %s {words}"], capture_output=True, text=True, check=True).stdout
    assert built(printed).rollouts.stop == ("\n",)
    assert settings.Rollouts(stop=yaml.safe_load('["\\n"]')).stop == ("\n",)


def test_commands_of_tex_that_begin_with_n_are_no_line_breaks():
    system = r"$a \neq b$, $\nabla f$, \newline $\nu$"
    assert settings.Prompt(system=system).system == system
    for text in (r"\n", r"\n\n", r"end\nQuestion", r"\nuser", r"a\n b"):
        with pytest.raises(ValueError, match="a backslash and an n"):
            settings.Prompt(system=text)


@pytest.mark.parametrize("override", ["policy=null", "sampler=3", "rollouts/prompt=[few_shot,null]", "dpo={rank: 2}"])
def test_a_group_needs_the_name_of_a_file(override):
    with pytest.raises(RunError, match="is a group of settings, name one of its files"):
        compose.check_overrides([override])
    compose.check_overrides(["policy=micro", "dpo=lora,default", "experiment=[tiny,idpo]", "policy.path=null"])


@pytest.mark.parametrize(
    "override, says",
    [
        ("run.name=${x}", "Interpolation key 'x' not found"),
        ("rollouts.prompt.system='Solve ${x}'", "Interpolation key 'x' not found"),
        ("run.seed=${no_such:1}", "Unsupported interpolation type no_such"),
        ("policy.path=${oc.env:NO_SUCH_VARIABLE_HERE}", "NO_SUCH_VARIABLE_HERE"),
    ],
)
def test_an_interpolation_without_a_value_is_explained(override, says):
    with pytest.raises(RunError, match=says) as error:
        compose.from_overrides(["experiment=tiny", override])
    assert override.partition("=")[0] in str(error.value) and r"write \${ for" in str(error.value)


def test_an_interpolation_can_be_written_as_text():
    config = compose.from_overrides(["experiment=tiny", r"rollouts.prompt.system='Solve \${x}'"])
    assert config.rollouts.prompt.system == "Solve ${x}"


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ([], []),
        (["rollouts.adaptive=true"], []),
        (["difficulty.too_hard=0.2", "sampler.rule=error"], []),
        (["rollouts.adaptive=true", "difficulty.too_hard=0.2"], ["too_hard=0.2 and too_easy=1 compare pass rates"]),
        (["rollouts.adaptive=true", "sampler.rule=error"], ["sampler.rule=error compares shares"]),
        (["rollouts.adaptive=true", "sampler.rule=error", "sampler.history=0"], []),
        (["rollouts.adaptive=true", "sampler.rule=uniform", "pairs.budget=9"], ["pairs.budget=9 cuts by pass rates"]),
    ],
)
def test_a_run_says_what_early_decision_changes(changed, found):
    warnings = early_decision_warnings(built(*changed))
    assert len(warnings) == len(found) and all(part in text for part, text in zip(found, warnings, strict=True))
