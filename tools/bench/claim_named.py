"""The figures of bench_claim by name, from the tables of its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from claim_figures import Table, interval, tokens_share
from claim_plan import ADAPTIVE, BASELINE, BOTH, OURS, PUBLISHED, RULES, SIMILAR, UNPROBED
from claim_trials import SMOLLM2

from hpc_saidpo import settings

NAMES = (
    "points_over_idpo", "points_over_idpo_low95", "tokens_to_idpo_share", "tokens_to_idpo_share_high95",
    "points_over_idpo_in_band", "points_over_idpo_in_band_low95", "tokens_to_idpo_share_in_band",
    "tokens_to_idpo_share_in_band_high95", "points_over_idpo_without_probe", "points_over_idpo_without_probe_low95",
    "points_over_published", "points_over_published_low95", "best_rule", "best_rule_over_default",
    "best_rule_over_default_low95", "tokens_per_pair_ratio_adaptive", "points_of_adaptive", "points_of_adaptive_low95",
    "points_of_kernel", "points_of_kernel_low95", "points_of_kernel_in_band", "points_of_kernel_in_band_low95",
    "points_of_frugal", "points_of_frugal_low95", "points_of_frugal_in_band", "points_of_frugal_in_band_low95",
    "tokens_per_pair_ratio_frugal", "smollm2_points_over_idpo", "smollm2_points_over_idpo_low95",
    "smollm2_tokens_to_idpo_share",
)  # fmt: skip


def headline_figures(tables: Sequence[Table]) -> dict[str, float | str | None]:
    """The figures by name of the systems that are there, of `Plan.pools`; in_band: on the second pool."""
    figures: dict[str, float | str | None] = {}

    def compare(name: str, table: Table, one: str, other: str) -> None:
        if one in table and other in table:
            figures[name], figures[f"{name}_low95"], _ = interval(table[one].gain - table[other].gain)

    for table, end in zip(tables, ("", "_in_band"), strict=True):
        compare(f"points_over_idpo{end}", table, OURS, BASELINE)
        compare(f"points_of_kernel{end}", table, SIMILAR, OURS)
        compare(f"points_of_frugal{end}", table, BOTH, OURS)
        if OURS in table and BASELINE in table:
            share, _, high = tokens_share(table[OURS], table[BASELINE])
            figures |= {f"tokens_to_idpo_share{end}": share, f"tokens_to_idpo_share{end}_high95": high}
    first = tables[0]
    compare("points_over_idpo_without_probe", first, OURS, UNPROBED)
    compare("points_over_published", first, OURS, PUBLISHED)
    compare("points_of_adaptive", first, ADAPTIVE, OURS)
    for system, name in ((ADAPTIVE, "adaptive"), (BOTH, "frugal")):
        if system in first and OURS in first:
            ratio = first[system].tokens_per_pair.mean() / first[OURS].tokens_per_pair.mean()
            figures[f"tokens_per_pair_ratio_{name}"] = float(ratio)
    return figures


def real_figures(tables: Mapping[str, Table]) -> dict[str, float]:
    """The figures by name of the comparison with the real language model, on the tasks in its range."""
    table = tables.get(SMOLLM2, {})
    if not {OURS, BASELINE} <= set(table):
        return {}
    mean, low, _ = interval(table[OURS].gain - table[BASELINE].gain)
    share, *_ = tokens_share(table[OURS], table[BASELINE])
    names = ("smollm2_points_over_idpo", "smollm2_points_over_idpo_low95", "smollm2_tokens_to_idpo_share")
    return dict(zip(names, (mean, low, share), strict=True))


def rule_figures(table: Table) -> dict[str, float | str | None]:
    """The rule with the largest gain, mean over the pools, and what it gains over the default's."""
    rules = [OURS, *RULES]
    if not set(rules) <= set(table):
        return {}
    best = max(rules, key=lambda rule: float(table[rule].gain.mean()))
    mean, low, _ = interval(table[best].gain - table[OURS].gain)
    name = settings.Sampler().rule if best == OURS else best
    return {"best_rule": name, "best_rule_over_default": mean, "best_rule_over_default_low95": low}
