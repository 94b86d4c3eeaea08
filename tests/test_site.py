"""The site: its navigation lists every page, links lead where the site has them, and every name has an example."""

import posixpath
import re
from pathlib import Path

import pytest
import site_examples
import site_links
import site_reference
import site_sources
from public import public_values

ROOT = Path(__file__).resolve().parent.parent
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Names without an example in their docstring, a page or a notebook. The list only shrinks: a new name brings its own.
WITHOUT_EXAMPLE = set(
    """
    Add FewShotPrompts Head KnockOut plots.list_plot Prompts Resample Scale ZeroValues as_prompts
    attention_explorer.Explorer attention_view compare data.Episodes errors.NotDefined
    errors.OUT_OF_MEMORY errors.Refused evidence.ARGUMENTS evidence.Inputs evidence.SixArguments
    evidence.inconclusive evidence.not_defined fewshot.FewShotStudy fewshot.fit_label_weights
    fewshot.input_shift_effect fewshot.label_auc fewshot.label_flow fewshot.label_format_effect
    fewshot.order_effect fewshot.retrieval_effect fewshot.reweighted head_census.BEHAVIOURS
    head_census.concept_copying head_census.list_ablation head_census.passages heads.HeadLike
    heads.as_head heads.as_heads heads.random_sets icl_score interventions.Edit
    interventions.Intervention kernel.control_weights kernel.explicit_similarity
    kernel.fitted_bandwidth kernel.held_out kernel.kernel_alignment kernel.kernel_regression
    kernel.next_token_similarity kernel.permuted_run kernel.representations kl_to loading.History
    loading.build loading.checkpoint_steps loading.read_recipe loading.training_history
    masks.after_all_copies masks.after_latest_copy masks.current_key masks.earlier_copies
    masks.first_key masks.one_lag metrics.Metric metrics.MetricLike metrics.Reading
    metrics.as_metric metrics.measured metrics.token_losses patterns probability
    prompts.Demonstrations prompts.Pairs prompts.as_few_shot prompts.concat prompts.random_tokens
    qk_trace stats.Threshold stats.check_confidence stats.correlation stats.correlation_interval
    stats.difference_interval stats.mean_interval stats.mean_share_difference_interval
    stats.mean_share_interval stats.percentiles stats.pooled_correlation stats.ratio stats.resampled
    stats.share_interval stats.shares_lost stats.split_interval stats.split_margin stats.threshold
    theory.hidden_markov_tasks training.Recipe training.before_and_after training.log_spaced
    training.over_checkpoints training.train training.train_families training.training_curves
    """.split()
)


@pytest.fixture(scope="module")
def reference():
    return site_reference.Reference(ROOT)


def listed(text: str, place: str) -> list[str]:
    """What the toctrees of a page name, as places in the site's sources without their endings."""
    lines = [line for block in TOCTREE.findall(text) for line in block.splitlines()]
    names = [re.sub(r".*<(.*)>", r"\1", line) for line in lines if line and not line.startswith(":")]
    return [posixpath.normpath(posixpath.join(posixpath.dirname(place), name)) for name in names]


def test_the_navigation_lists_every_page_once():
    texts = {place: path.read_text() for path, place in site_sources.pages().items() if path.suffix == ".md"}
    texts["notebooks/index.md"] = "\n".join(site_sources.cards_of_notebooks())
    named = [name for place, text in texts.items() for name in listed(text, place)]
    there = {place.rpartition(".")[0] for place in site_sources.pages().values()} | set(
        site_sources.generated()
    )
    assert sorted(named) == sorted(there - {"index"})


def test_links_out_of_the_pages_lead_to_the_repository(monkeypatch):
    page = ROOT / "docs" / "extending.md"
    text = "[`errors.py`](../induction_kernel/errors.py), [its rooms](../induction_kernel)"
    monkeypatch.setattr(site_sources, "repository", lambda: "")
    as_text = "`induction_kernel/errors.py`, its rooms (`induction_kernel`)"
    assert site_sources.with_links(text, page) == as_text
    monkeypatch.setattr(site_sources, "repository", lambda: "https://example.org/code")
    where = "https://example.org/code/blob/main/induction_kernel"
    linked = f"[`errors.py`]({where}/errors.py), [its rooms]({where})"
    assert site_sources.with_links(text, page) == linked
    inside = "[a tour](../notebooks/01_tour.ipynb#x), [x](scores.md#prompts)"
    assert site_sources.with_links(inside, page) == inside.replace("../", "")
    block = "```python\n[x](../induction_kernel/errors.py)\n```"
    assert site_sources.with_links(block, page) == block


def test_names_in_code_are_linked_but_for_blocks_links_and_headings():
    names = {"sweep": "ik.sweep", "kernel.vote": "ik.kernel.vote"}
    text = "# `sweep`\n\n`sweep`, `sweep`, `ik.kernel.vote`, [`sweep`](x.md), `swept`\n\n```\n`sweep`\n```"
    assert site_sources.with_references(text, names) == (
        "# `sweep`\n\n{py:obj}`sweep <ik.sweep>`, `sweep`, {py:obj}`ik.kernel.vote <ik.kernel.vote>`, "
        "[`sweep`](x.md), `swept`\n\n```\n`sweep`\n```"
    )


def test_every_public_name_stands_in_the_reference_once(reference):
    text = "\n".join(reference.pages().values())
    named = re.findall(r"\{py:(?:function|class|exception|data)\} ik\.([\w.]+)", text)
    assert len(named) == len(set(named))
    assert set(named) == set(public_values())


def test_the_reference_has_what_a_docstring_says(reference):
    text = reference.pages()["interventions"]
    assert "{py:function} ik.sweep(model, prompts, *, edit=None, site='z', by=('layer', 'head'), " in text
    assert "`max_tokens`\n: tokens in one batch" in text
    assert "{py:method} ik.Add.new(model, prompts, site, layers)" in text
    scorers = reference.pages()["scorers"]
    assert "{py:function} ik.induction(model, prompts=None, *, compat=None" in scorers
    assert "Averaged over the queries of later copies" in scorers


def test_names_have_examples(reference):
    assert set(reference.without_example()) <= WITHOUT_EXAMPLE


def test_an_example_is_a_statement_of_a_page(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(
        "# A page\n\n```python\nimport x\nfound = ik.kernel.vote(\n    1\n)\n```\n"
    )
    used = site_examples.uses(tmp_path, {"kernel.vote": "ik.kernel.vote"})
    assert used == {
        "ik.kernel.vote": site_examples.Use("found = ik.kernel.vote(\n    1\n)", "../a.md", "A page")
    }


def test_broken_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="here"></p><a href="#here"></a><a href="#gone"></a><a href="b.html"></a><a href="https://x.org"></a>'
        '<script src="https://x.org/x.js"></script>'
    )
    wrong, followed = site_links.broken(tmp_path)
    assert [line.partition(":")[0] for line in wrong] == [
        "a.html loads https",
        "a.html leads to #gone",
        "a.html leads to b.html",
    ]
    assert followed == 3
