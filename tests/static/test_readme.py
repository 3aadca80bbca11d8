"""The figures in the README are those of the files it names."""

import csv
import json

from conftest import ROOT
from readme import NOTEBOOKS, README, flat

from distil.workspace.files import read_csv, read_jsonl

RESULTS = ROOT / "benchmarks" / "results"


def test_tables_are_the_measured_ones():
    for run in ("cpu", "h100"):
        assert (RESULTS / run / "results.md").read_text().strip() in README, run


def test_differences_are_the_measured_ones():
    for run in ("cpu", "h100"):
        for row in read_jsonl(RESULTS / run / "differences.jsonl"):
            if row["of"] == "fast":
                gain, low, high = (f"{100 * row[key]:+.1f}" for key in ("difference", "ci_low", "ci_high"))
                assert f"fast minus {row['to']}: {gain} points ({low} to {high})" in flat(README), (run, row)


def test_the_other_seeds_are_the_measured_ones():
    said = []
    for seed in (1, 2):
        with open(RESULTS / "cpu" / f"results_seed{seed}.csv", newline="") as handle:
            (row,) = csv.DictReader(handle)
        said.append(f"{float(row['accuracy']):.1%} at {float(row['tokens_per_answer']):.0f}")
    assert f"04_finetune.seed=1` and 2 fast gets {said[0]} tokens and {said[1]}," in flat(README)


def test_what_is_said_of_harder_problems_on_a_laptop_is_measured():
    with open(RESULTS / "cpu" / "results_reference.csv", newline="") as handle:
        rows = {row["student"]: row for row in csv.DictReader(handle)}
    base, slow, fast = (f"{float(rows[name]['accuracy']):.1%}" for name in ("base", "slow", "fast"))
    assert f"base, slow and fast get {base}, {slow} and {fast} of {rows['fast']['n']} (" in flat(README)


def test_the_training_budget_is_the_measured_one():
    meta = json.loads((RESULTS / "cpu" / "meta.json").read_text())["04_finetune"]
    assert f"{meta['params']['train_tokens']:,} training tokens" in README
    assert f"{meta['figures']['fast_examples']} examples for fast" in flat(README)
    assert f"{meta['figures']['slow_examples']} for slow" in flat(README)
    large = json.loads((RESULTS / "h100" / "meta.json").read_text())
    minutes = sum(large[stage]["seconds"] for stage in ("04_finetune", "05_prefer", "06_reinforce", "07_eval")) / 60
    assert f"{large['04_finetune']['params']['train_tokens']:,} training tokens" in README
    assert f"04 to 07 took {minutes:.0f} minutes" in flat(README)
    slow = next(row for row in read_csv(RESULTS / "h100" / "results.csv") if row["student"] == "slow")
    at_most = large["07_eval"]["params"]["max_new_tokens"]
    assert f"cut off at {at_most} tokens in {slow['cut_off']:.0%} of its answers" in flat(README)


def test_costs_are_the_measured_ones():
    stages = json.loads((RESULTS / "costs.json").read_text())["cpu"]["stages"]
    minutes = sum(stage["minutes"] for stage in stages.values())
    peak = max(stage["peak_ram_gb"] for stage in stages.values())
    assert f"{minutes:.0f} minutes" in README and f"{peak} GiB" in README
    for name in ("03_judge", "04_finetune", "05_prefer", "06_reinforce", "07_eval"):
        assert f"{name[:2]} {stages[name]['minutes']}" in flat(README), name


def points(row: dict) -> str:
    gain, low, high = (f"{100 * row[key]:+.1f}" for key in ("difference", "ci_low", "ci_high"))
    return f"{gain} ({low} to {high})"


def by_seed(row: dict) -> str:
    return ", ".join(f"{100 * gap:+.1f}" for gap in row["by_seed"])


def test_tables_over_seeds_are_the_measured_ones():
    for file, name, gains in (("prefer", "name", "minus_sft"), ("align", "selection", "minus_shortest")):
        measured = json.loads((RESULTS / f"{file}.json").read_text())
        gained = {row[name]: points(row) for row in measured[gains]}
        for kind in dict.fromkeys(row[name] for row in measured["rows"]):
            rows = [row for row in measured["rows"] if row[name] == kind]
            accuracies = " / ".join(f"{100 * row['accuracy']:.1f}" for row in rows)
            tokens = " / ".join(f"{row['tokens_per_answer']:.0f}" for row in rows)
            assert f"| {kind} | {accuracies} | {gained.get(kind, '')} | {tokens} |" in README, kind


def test_what_is_said_of_the_judges_is_measured():
    measured = json.loads((RESULTS / "align.json").read_text())
    judges, sizes = measured["judges"], {row["n"] for row in measured["rows"]}
    said = f"on {100 * judges['agree']:.0f}% of {judges['n']:,} chains, Cohen's kappa {judges['kappa']:.2f}"
    assert said in flat(README)
    sets = f"training sets of {sizes.pop()} examples each, {measured['sft']['train_tokens']:,} training tokens"
    assert sets in flat(README) and not sizes
    alone = measured["loops"]["student"]["alone"]
    assert f"given nothing, {alone['medium']:.0%} of the time" in flat(README)
    assert f"it found easy {alone['easy']:.0%}" in flat(README)
    loop = measured["student-loop_minus_student"]
    assert f"brought {points(loop)} points back, by seed {by_seed(loop)}: likely, and not shown" in flat(README)
    assert loop["ci_low"] < 0 < loop["ci_high"], "not shown by three seeds"
    lost = next(row for row in measured["minus_shortest"] if row["selection"] == "student")
    assert lost["ci_high"] < 0 and max(lost["by_seed"]) < 0 and "three points, with every seed some" in flat(README)
    assert all(row["ci_low"] < 0 < row["ci_high"] for row in measured["minus_shortest"] if row is not lost)
    notebook = NOTEBOOKS["03_judge"]
    assert f"kappa {judges['kappa']:.2f}" in notebook
    for row in measured["minus_shortest"]:
        if row["selection"] in ("student", "student-loop", "llm-loop"):
            assert points(row) in notebook, row["selection"]


def test_what_is_said_of_preference_training_is_measured():
    notebook = NOTEBOOKS["05_prefer"]
    measured = json.loads((RESULTS / "prefer.json").read_text())
    unequal = {row["name"]: row for row in json.loads((RESULTS / "prefer_unequal.json").read_text())["minus_sft"]}
    for row in measured["minus_sft"]:
        if row["name"] in ("dpo", "cogpo"):
            assert f"{100 * row['difference']:+.1f}" in notebook
            assert f"{100 * row['ci_low']:+.1f} to {100 * row['ci_high']:+.1f}" in notebook
            before = unequal[row["name"]]
            assert f"{row['name']} {points(before)}, by seed {by_seed(before)}" in flat(README)
            assert f"lost {-100 * min(before['by_seed']):.1f} points each; the other two gained" in notebook
            assert sum(gap > 0 for gap in before["by_seed"]) == 2
    before = json.loads((RESULTS / "prefer_unequal.json").read_text())["rows"]
    wordy = next(row for row in before if (row["name"], row["seed"]) == ("cogpo", 1))["families"]["simple_geometry"]
    assert 2 * wordy["cut_off"] == wordy["n"]
    assert "one seed of three learned length, cut off in half of its triangles" in flat(README)
    pairs = [row["pairs"] for row in measured["rows"] if row["pairs"]]
    assert f"({min(pairs)} to {max(pairs)} were to be had)" in flat(README)


def test_collecting_is_as_fast_as_measured():
    measured = json.loads((RESULTS / "collect.json").read_text())
    seconds = [measured["ours_s"]] + [peer[key] for peer in measured["peers"] for key in ("s", "s_one_request")
                                      if key in peer]  # fmt: skip
    assert all(f"{s:.2f} s" in flat(README) for s in seconds if s > 1), seconds
    first, second = measured["rows"]
    asked, _, each = measured["what"].partition(" requests")[0], *measured["what"].partition("answer in ")[1:]
    said = f"{int(asked):,} requests, {first['concurrency']} at once, to a server that streams each answer in "
    said += f"{each.partition(' s')[0]} s take {first['ours_s']:.2f} s, {first['ratio']} times what is possible; "
    assert f"{said}{second['concurrency']} at once {second['ratio']} times" in flat(README)
    assert measured["ratio"] == first["ratio"]
    assert f"One by one it would be {measured['sequential_s']:.0f} s" in flat(README)


def test_the_profiles_table_is_what_was_estimated_and_measured():
    for row in json.loads((RESULTS / "profiles.json").read_text())["rows"]:
        gpus, each = (f"{row['gpus']} x ", " each") if row["gpus"] > 1 else ("", "")
        seen = row["measured"]
        measured = f"{seen['peak_gib']:.1f} | {seen['tokens_per_s']:,.0f}" if seen else "- | -"
        line = (
            f"| {row['profile']} | {row['student'].partition('/')[2]}, {row['method']} | {row['max_length']:,} | "
            f"{gpus}{row['gpu_gib']:g} GiB{' (FSDP)' if gpus else ''} | {row['backend']} | "
            f"{row['expected_gib']['total']:.1f}{each} | {measured} |"
        )
        assert line in README, line
        assert not seen or seen["peak_gib"] < row["gpu_gib"], "what is offered for a card fits it"


def test_the_profiles_table_is_of_these_profiles():
    from distil.workspace.profiles import PROFILES

    for row in json.loads((RESULTS / "profiles.json").read_text())["rows"]:
        asked = PROFILES[row["profile"]]["04_finetune"]
        assert (row["method"], row["max_length"]) == (asked["method"], asked["max_length"])
        assert row["student"] == PROFILES[row["profile"]]["all"]["student"]


def test_the_sandbox_is_the_measured_one():
    first, second = json.loads((RESULTS / "sandbox.json").read_text())["rows"]
    assert (first["mechanism"], second["mechanism"]) == ("bwrap", "sandlock")
    for row in (first, second):
        assert f"{row['contained']} of {row['programs']} hostile programs contained" in flat(README)
        assert row["harm"] == [] and row["humaneval_empty_passed"] == 0
        assert f"all {row['humaneval_solutions_passed']} solutions of HumanEval" in flat(README)
    speeds = f"{first['verdicts_per_s']} verdicts a second (sandlock {second['verdicts_per_s']})"
    assert speeds in flat(README)


def test_what_is_said_of_reinforcement_is_measured():
    measured = json.loads((RESULTS / "reinforce.json").read_text())
    gained = {row["name"]: points(row) for row in measured["minus_sft"]}
    for row in measured["rows"]:
        accuracy, low, high = (f"{100 * share:.1f}%" for share in (row["accuracy"], *row["ci"]))
        line = f"| {row['name']} | {accuracy} ({low} to {high}) | {gained.get(row['name'], '')} |"
        assert f"{line} {row['tokens_per_answer']:.1f} |" in README, row["name"]
    runs = [row["grpo"] for row in measured["rows"] if row["grpo"]]
    speeds, minutes = (" and ".join(form(run) for run in runs) for form in (
        lambda run: f"{run['tokens_per_s']:,}", lambda run: f"{run['seconds'] / 60:.1f}"))  # fmt: skip
    said = f"wrote {runs[0]['completions']:,} attempts through vLLM in its own process, at {speeds} tokens a second"
    assert said in flat(README) and f"and took {minutes} minutes" in flat(README)
    assert all(run["engine"] == "vllm" and run["completions"] == runs[0]["completions"] for run in runs)
    (more,) = measured["minus_correctness"]
    assert f"against correctness alone that is {points(more)} points" in flat(README)
    notebook = NOTEBOOKS["06_reinforce"]
    assert all(gain.replace(" (", " points (") in notebook for gain in gained.values())


def test_what_is_said_of_the_reward_model_is_measured():
    measured = json.loads((RESULTS / "reward.json").read_text())
    for head in ("rv", "cd", "correct"):
        ours, length = (next(row for row in measured["rows"] if (row["head"], row["predictor"]) == (head, predictor))
                        for predictor in ("model", "length_only"))  # fmt: skip
        figures = (ours["spearman"], length["spearman"], ours["mae"], length["mae"])
        assert f"| {head} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |" in README
    assert f"{measured['chains']:,} chains" in README and measured["splits"] == 5
    assert measured["grades_given"]["rv"] == [1, 3] and measured["grades_given"]["cd"] == [1, 2, 4, 6]


def test_what_is_said_of_the_harness_is_measured():
    for row in json.loads((RESULTS / "harness.json").read_text())["rows"]:
        low, high = row["ci"]
        said = f"{row['model'].partition('/')[2]} {row['ours']}% ({low} to {high}; published {row['published']})"
        assert said in flat(README), said
        assert low <= row["published"] <= high
        assert row["weights"].startswith("4 bits") and "with weights of four bits" in flat(README)


def test_what_is_said_of_adaptive_students_is_measured():
    measured = json.loads((RESULTS / "adaptive.json").read_text())
    ratios = {row["name"]: row["harder_over_easy"] for row in measured["ratios"]}
    for name, ratio in ratios.items():
        cells = []
        for suite in ("easy", "harder"):
            (row,) = (row for row in measured["rows"] if (row["name"], row["suite"]) == (name, suite))
            accuracy, low, high = (f"{100 * share:.1f}%" for share in (row["accuracy"], *row["ci"]))
            cells.append(f"{accuracy} ({low} to {high}) | {row['tokens_per_answer']:.0f}")
        assert f"| {name} | {cells[0]} | {cells[1]} | {ratio:.2f} |" in README, name
    same = (
        f"of the {measured['problems_of_both_sets']} problems in both, {measured['with_the_same_chain']} have the same"
    )
    assert same in flat(README) and f"{measured['train_tokens']:,} training tokens a set" in README


def test_the_speed_of_training_is_the_measured_one():
    found, text = json.loads((RESULTS / "sft.json").read_text()), flat(README)
    rows = found["rows"][:7]  # the others are measured for their losses
    for row in rows:
        figures = f"{row['tokens_a_step']:,} | {row['tokens_per_s']:,.0f} | {row['peak_gb']:.1f} | {row['mfu']:.1%}"
        assert f"| {row['name']} | {figures} |" in README, figures
    ours, large, little, unsloth, unsloth_large, trl, public = rows

    def times(key: str, row: dict, other: dict, digits: int = 1) -> str:
        return f"{row[key] / other[key]:.{digits}f} times"

    speed, memory = "tokens_per_s", "peak_gb"
    assert (
        f"{times(speed, ours, trl)} as fast as plain TRL and {times(speed, ours, public)} as fast as the public" in text
    )
    assert f"in {times(memory, ours, trl)} plain TRL's memory" in text
    assert f"it is {times(speed, little, trl)} as fast in {times(memory, little, trl, 2)} the memory" in text
    assert f"{times(speed, ours, unsloth)} as fast as Unsloth at 16 rows a step, and" in text
    assert f"and {times(speed, large, unsloth_large)} with large ones" in text
    (same,) = found["same_losses"]
    apart = f"by {same['relative_mean']:.2%} in the mean and {same['relative_largest']:.2%} at most"
    assert f"the losses of {len(same['check ours'])} steps differ from TRL's {apart}" in text


def test_what_is_said_of_several_gpus_is_measured():
    found = json.loads((RESULTS / "several_gpus.json").read_text())
    names = {"one": "one", "ddp": "two, DDP", "fsdp": "two, FSDP"}
    for row in found["rows"]:
        apart = "" if row["way"] == "one" else f"{row['largest_difference']:.1%}"
        line = (
            f"| {row['student']}, {row['method']} | {names[row['way']]} | {apart} | {row['tokens_per_s']:,.0f} | "
            f"{row['memory_gb']:.1f} |"
        )
        assert line in README, line
    assert f"its losses fall from {found['rows'][-1]['losses'][0]:.1f}" in README
    assert found["gpu"] == "NVIDIA H200" and "Two H200s learn" in README


def test_what_is_said_of_students_side_by_side_is_measured():
    found = json.loads((RESULTS / "side_by_side.json").read_text())
    after, beside = (row["seconds"] for row in found["rows"])
    assert f"took {beside} seconds from start to end, one after the other {after}" in README
    assert found["beside"].startswith("another training used the same GPU")


def percent(share: float) -> str:
    return f"{share:.1%}"


def test_what_is_said_of_packed_reinforcement_is_measured():
    found = json.loads((RESULTS / "reinforce_packed.json").read_text())
    before, after = found["rows"]
    grpo, (gain,) = after["grpo"], found["minus_sft"]
    minutes = [f"{grpo[name] / 60:.1f}" for name in ("seconds", "writing_s", "grading_s")]
    spans = [f"{percent(row['accuracy'])} ({' to '.join(map(percent, row['ci']))})" for row in (before, after)]
    points = [f"{100 * gain[name]:+.1f}" for name in ("difference", "ci_low", "ci_high")]
    for words in (
        f"{grpo['steps']} steps in {minutes[0]} minutes, compiling included, of which {minutes[1]} writing, at "
        f"{grpo['tokens_per_s']:,} tokens a second, and {minutes[2]} grading",
        f"from {spans[0]} to {spans[1]}, {points[0]} points ({points[1]} to {points[2]})",
        f"from {before['tokens_per_answer']:.1f} to {after['tokens_per_answer']:.1f} tokens an answer",
    ):
        assert words in README, words


def test_what_is_said_of_white_box_distillation_is_measured():
    found = json.loads((RESULTS / "whitebox.json").read_text())
    gains = {row["name"]: row for row in found["minus_longer"]}
    for row in found["rows"]:
        gain, told = gains.get(row["name"]), row["training"]
        points = [f"{100 * gain[name]:+.1f}" for name in ("difference", "ci_low", "ci_high")] if gain else []
        minus = f"{points[0]} ({points[1]} to {points[2]})" if gain else ""
        line = (
            f"| {percent(row['accuracy'])} ({' to '.join(map(percent, row['ci']))}) | {minus} | "
            f"{row['tokens_per_answer']:.0f} | {told['tokens']:,} | {told['seconds']:.0f} |"
        )
        assert line in README and f"| {row['name']}: " in README, line
    assert f"{found['rows'][0]['train_tokens']:,} tokens, is taught further" in README


def test_the_records_of_04_are_the_kept_ones():
    expected, taken, used = [], [], []
    for folder in sorted((RESULTS / "finetune").iterdir()):
        meta = json.loads((folder / "meta.json").read_text())
        figures = meta["figures"]
        expected, taken = [*expected, figures["memory_expected_gb"]], [*taken, meta["peak_vram_gb"]]
        assert f"{meta['params']['train_tokens']:,} training tokens a student" in flat(README)
        logged = [row["memory_gb"] for path in folder.glob("*/log.csv") for row in read_csv(path)]
        used.append(max(gib for gib in logged if gib))
        for name in meta["params"]["students"].split(","):
            line = (
                f"| {folder.name}, {meta['params']['method']} | {name} | {figures[name + '_examples']} | "
                f"{figures[name + '_valid_loss']:.2f} | {figures[name + '_tokens_per_s']:,.0f} |"
            )
            assert line in README, line
            assert (folder / name / "log.csv").exists() and (folder / "loss.png").exists()
    first, second = expected
    assert f"to take {first:.1f} and {second:.1f} GiB" in flat(README)
    assert (
        f"torch reserved {taken[0]:.1f} and {taken[1]:.1f}, of which at most {used[0]:.1f} and {used[1]:.1f}"
        in flat(README)
    )


def test_the_speed_of_the_engines_is_the_measured_one():
    ways = {row["way"]: row for row in json.loads((RESULTS / "generate.json").read_text())["ways"]}
    plain, ours, paged, server = (row["tokens_per_s"] for row in ways.values())
    for sentence in (
        f"`model.generate` writes {plain:.0f} tokens a second in batches of {ways['model.generate']['batch']}",
        f"our batches of {ways['ours']['batch']} write {ours:.0f}, {ours / plain:.0f} times as many",
        f"continuous batching {paged:.0f}, and a vLLM server {server:,.0f}, {server / plain:.0f} times as many",
    ):
        assert sentence in flat(README), sentence
