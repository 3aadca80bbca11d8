"""What the README says of the kept run is what its files say; and a README that says otherwise is found out."""

import gzip
import json

import pytest
from conftest import ROOT
from readme import README, flat

from benchmarks.reference_run import claim
from distil.evaluate.published_scores import tokens
from distil.workspace.files import read_csv
from distil.workspace.stage import STAGES

KEPT = ROOT / "artifacts" / "reference"


def unsaid(folder, readme: str) -> list[str]:
    """What a README has to say of a kept run, word for word but for line breaks, and does not."""
    shown = json.loads((folder / "claim.json").read_text())
    wanted = [
        (folder / "results.md").read_text().strip(),
        "](artifacts/reference/accuracy_tokens.png)",
        *claim.sentences(shown),
        *shown["commits"],
    ]
    return [text for text in wanted if flat(text) not in flat(readme)]


def test_the_readme_says_what_the_kept_run_says():
    assert unsaid(KEPT, README) == []


def test_what_the_readme_adds_to_the_claim_is_in_the_kept_files():
    text, shown = README, json.loads((KEPT / "claim.json").read_text())
    about = {stage: json.loads((KEPT / stage / "meta.json").read_text()) for stage in STAGES}
    rows = {row["student"]: row for row in read_csv(KEPT / "results.csv")}
    greedy = {row["student"]: row for row in read_csv(KEPT / "greedy" / "results.csv")}
    trained = {name: json.loads((KEPT / f"04_finetune/{name}/sft.json").read_text())["result"] for name in rows
               if name in ("fast", "slow", "unaligned")}  # fmt: skip
    fast, slow, unaligned = (trained[name] for name in ("fast", "slow", "unaligned"))
    judged = about["03_judge"]["figures"]
    flow = {(row["first_verdict"], row["end"]): row["chains"] for row in read_csv(KEPT / "03_judge" / "flow.csv")}
    improved, dropped = (flow["easy", end] for end in ("kept after improvement", "not kept"))
    spent = read_csv(KEPT / "costs.csv")
    gaps = {(row["of"], row["to"]): row for row in map(json.loads, (KEPT / "greedy/differences.jsonl").open())}
    away = gaps["fast", "unaligned"]
    swapped = {"difference": -away["difference"], "ci_low": -away["ci_high"], "ci_high": -away["ci_low"]}
    asked, families = (
        json.loads((KEPT / "asked.json").read_text()),
        {json.loads(line)["task"] for line in gzip.decompress((KEPT / "problems.jsonl.gz").read_bytes()).splitlines()},
    )
    papers = [
        tokens(suite)["DistilQwen2.5-R1-32B"] / tokens(suite)["DistilQwen2.5-DS3-0324-32B"]
        for suite in ("aime2024", "mmlu-pro")
    ]
    wanted = [
        f"{shown['problems']} others held out",
        f"at most {shown['max_new_tokens']:,} tokens",
        f"With {asked['batch_size']} requests under way",
        "report {:.1f} and {:.1f} times fewer tokens".format(*papers),
        f"at {rows['reinforced']['tokens_per_answer']:.0f} tokens instead of {rows['fast']['tokens_per_answer']:.0f}",
        f"{about['01_collect']['figures']['problems'] - shown['problems']:,} training problems",
        f"{rows['slow']['cut_off']:.0%} of slow's answers are cut off",
        f"learned from equal tokens, {round(fast['tokens'], -3):,}, not from equal examples: "
        f"fast saw {fast['examples']:,}, {fast['epochs']:.1f} times its set, slow {slow['examples']}, "
        f"{slow['epochs']} times its set",
        f"fast writes {rows['fast']['tokens_per_second']:,.0f} tokens a second where slow writes "
        f"{rows['slow']['tokens_per_second']:,.0f}",
        f"no better than the base, {claim.points(shown['against']['base']['slow'])}",
        f"where answers are greedy, {claim.points(gaps['slow', 'base']).replace(' points', '')}",
        f"called {improved + dropped:.0f} of {judged['candidates']:,} chains easy",
        f"that succeeded with {judged['improved']}, and the others were dropped",
        f"Left were {judged['fast']} chains instead of {judged['unaligned']}, and longer ones: "
        f"{fast['tokens'] / fast['examples']:.0f} tokens an example, with its prompt, instead of "
        f"{unaligned['tokens'] / unaligned['examples']:.0f}",
        f"the difference is {claim.points(swapped).replace(' points', '')}",
        f"with CogPO on {about['05_prefer']['figures']['pairs']} pairs",
        f"{rows['preferred']['tokens_per_answer']:.0f} tokens instead of {rows['fast']['tokens_per_answer']:.0f}",
        f"with {about['06_reinforce']['figures']['steps']} steps of GRPO",
        f"{shown['recovered']['reinforced']['as the students']:.0%} of the teacher's accuracy in a quarter",
        *(f"{name} {row['accuracy']:.1%}" for name, row in greedy.items()),
        *(f"{name} {row['accuracy']:.1%} at {row['tokens_per_answer']:.0f}" for name, row in greedy.items()
          if name != "base"),
        *(f"| {row['stage']} | {row['minutes']:.2f} | {row['peak_vram_gb']:.1f} |" for row in spent),
    ]  # fmt: skip
    assert [said for said in wanted if said not in text] == []
    assert len(families - {"programs"}) == 11 and "of eleven families of reasoning-gym and small programs" in text
    assert (shown["samples"], "four sampled answers to each" in text) == (4, True)
    assert improved == judged["improved"] and fast["tokens"] // 1000 == slow["tokens"] // 1000 == 300
    assert 4 * rows["reinforced"]["tokens_per_answer"] == pytest.approx(rows["teacher"]["tokens_per_answer"], rel=0.1)


GAP = {"tokens_gain": 6.25, "seconds_gain": 8.0, "difference": 0.012, "ci_low": -0.004, "ci_high": 0.0281}
SHOWN = {
    "turns": True,
    "commits": ["0123456789ab"],
    "against": {
        "slow": {"fast": GAP},
        "fast": {"preferred": GAP | {"difference": -0.4}, "base": GAP},
        "teacher": {"fast": GAP},
    },
    "ended": {"pairs": 1117, "of": 2000, "tokens_gain": 4.28},
    "recovered": {"fast": {"as the students": 0.905}},
    "minutes": 51.3,
    "answered_before": 11498,
}
SAYS = """
| student | accuracy |
|---|---|
| fast | 50.0% |

![Accuracy against tokens](artifacts/reference/accuracy_tokens.png)

All intervals are at 95%, over questions and paired by question, of these checkpoints: one training seed each.
Commit 0123456789ab; fast against slow, whose chains were made in turns of solving, checking and concluding: 6.2 times
fewer tokens and 8.0 times fewer seconds an answer, accuracy +1.2 points (-0.4 to +2.8); in the 1,117 of 2,000 pairs of
answers that both ended by themselves 4.3 times fewer tokens. preferred minus fast: -40.0
points (-0.4 to +2.8); fast minus teacher: +1.2 points (-0.4 to +2.8); fast has 90% of the teacher's accuracy; the whole
took 51 minutes, beside the asking for 11,498 answers that 01 had from before.
"""


def test_a_run_that_asked_for_its_answers_itself_says_no_more_than_its_minutes():
    assert claim.sentences(SHOWN | {"answered_before": 0})[-1] == "the whole took 51 minutes"


@pytest.mark.parametrize(("said", "instead"), [
    ("in turns of", "at length by"),
    ("50.0%", "51.0%"), ("accuracy_tokens.png", "tokens.png"), ("6.2 times", "6.3 times"), ("8.0 times", "9.0 times"),
    ("+2.8", "+1.8"), ("-40.0", "-30.0"), ("90% of", "95% of"), ("took 51", "took 15"),
    ("one training seed", "many seeds"),
    ("11,498", "1,498"), ("1,117", "117"), ("4.3 times", "4.4 times"), ("0123456789ab", "0123456789"),
])  # fmt: skip
def test_a_readme_that_says_otherwise_is_found_out(tmp_path, said, instead):
    (tmp_path / "claim.json").write_text(json.dumps(SHOWN))
    (tmp_path / "results.md").write_text("| student | accuracy |\n|---|---|\n| fast | 50.0% |\n")
    assert unsaid(tmp_path, SAYS) == []
    assert len(unsaid(tmp_path, SAYS.replace(said, instead, 1))) == 1
