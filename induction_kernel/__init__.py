"""Which heads of a transformer are induction heads, what do they look at, and what if they were gone?

A plugin for TransformerLens: it takes your model object as it is and gives it back as it was. This file is
the table of contents. A name is imported when it is first used, so `import induction_kernel` itself is
instant: neither torch nor TransformerLens is loaded.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # the same names as in the dict below; a test holds the two equal
    from .evidence.ablating import direct_ablation as direct_ablation
    from .evidence.across import continuity as continuity
    from .evidence.behaviours import generality as generality
    from .evidence.circuits import mechanism as mechanism
    from .evidence.cooccurring import co_occurrence as co_occurrence
    from .evidence.gathering import six_arguments as six_arguments
    from .evidence.smearing import co_perturbation as co_perturbation
    from .evidence_page import write_evidence as write_evidence
    from .fewshot_page import write_fewshot_page as write_fewshot_page
    from .heads import Head as Head
    from .heads import compare as compare
    from .heads import head_table as head_table
    from .heads import random_heads as random_heads
    from .heads import random_sets as random_sets
    from .heads import summarise as summarise
    from .heads import top_heads as top_heads
    from .interventions.ablation import ablate as ablate
    from .interventions.ablation import ablation_curve as ablation_curve
    from .interventions.ablation import knock_out as knock_out
    from .interventions.attributing import attribution as attribution
    from .interventions.edits import Add as Add
    from .interventions.edits import FromRun as FromRun
    from .interventions.edits import KnockOut as KnockOut
    from .interventions.edits import Mean as Mean
    from .interventions.edits import Resample as Resample
    from .interventions.edits import Scale as Scale
    from .interventions.edits import Zero as Zero
    from .interventions.edits import ZeroValues as ZeroValues
    from .interventions.engine import sweep as sweep
    from .interventions.lasting import edited as edited
    from .interventions.patching import patch as patch
    from .interventions.paths import path_patch as path_patch
    from .kernel.aligning import fitted_bandwidth as fitted_bandwidth
    from .kernel.aligning import kernel_alignment as kernel_alignment
    from .kernel.anchors import label_auc as label_auc
    from .kernel.anchors import label_flow as label_flow
    from .kernel.causal import label_knock_out as label_knock_out
    from .kernel.controls import control_weights as control_weights
    from .kernel.controls import permuted_run as permuted_run
    from .kernel.data import LabelledTexts as LabelledTexts
    from .kernel.data import classification as classification
    from .kernel.episodes import Episodes as Episodes
    from .kernel.episodes import draw_episodes as draw_episodes
    from .kernel.evaluating import in_context as in_context
    from .kernel.mapping import demonstration_attention as demonstration_attention
    from .kernel.markov import hidden_markov_tasks as hidden_markov_tasks
    from .kernel.nexttoken import next_token_similarity as next_token_similarity
    from .kernel.phenomena import input_shift_effect as input_shift_effect
    from .kernel.phenomena import label_format_effect as label_format_effect
    from .kernel.phenomena import order_effect as order_effect
    from .kernel.phenomena import retrieval_effect as retrieval_effect
    from .kernel.probes import probe as probe
    from .kernel.quoting import quoted_votes as quoted_votes
    from .kernel.reconstruction import reconstruct as reconstruct
    from .kernel.reconstruction import sum_heads as sum_heads
    from .kernel.regression import explicit_similarity as explicit_similarity
    from .kernel.regression import kernel_regression as kernel_regression
    from .kernel.representing import representations as representations
    from .kernel.reweighting import fit_label_weights as fit_label_weights
    from .kernel.reweighting import reweighted as reweighted
    from .kernel.splits import held_out as held_out
    from .kernel.splits import reconstruction_table as reconstruction_table
    from .kernel.studying import FewShotStudy as FewShotStudy
    from .kernel.studying import few_shot_study as few_shot_study
    from .kernel.theory import kernel_theory as kernel_theory
    from .kernel.vectors import function_vectors as function_vectors
    from .kernel.writing import label_writing as label_writing
    from .loading import load as load
    from .metrics import icl_score as icl_score
    from .metrics import kl_to as kl_to
    from .metrics import label_accuracy as label_accuracy
    from .metrics import logit_difference as logit_difference
    from .metrics import loss as loss
    from .metrics import loss_by_position as loss_by_position
    from .metrics import probability as probability
    from .metrics import repeat_loss as repeat_loss
    from .page import write_report as write_report
    from .plots.components import component_plot as component_plot
    from .plots.components import slope_plot as slope_plot
    from .plots.curves import curve_plot as curve_plot
    from .plots.curves import exact_plot as exact_plot
    from .plots.demonstrations import demonstration_map as demonstration_map
    from .plots.dynamics import phase_plot as phase_plot
    from .plots.effects import effect_map as effect_map
    from .plots.figures import head_map as head_map
    from .plots.figures import loss_plot as loss_plot
    from .plots.judgements import evidence_plot as evidence_plot
    from .plots.lines import line_plot as line_plot
    from .plots.tables import interval_plot as interval_plot
    from .plots.views import attention_view as attention_view
    from .plots.votes import vote_view as vote_view
    from .prompts import Prompts as Prompts
    from .prompts import as_prompts as as_prompts
    from .prompts import few_shot as few_shot
    from .prompts import pairs as pairs
    from .prompts import repeated_tokens as repeated_tokens
    from .prompts import with_answers as with_answers
    from .prompts import word_episodes as word_episodes
    from .scorers.attention import duplicate_token as duplicate_token
    from .scorers.attention import induction as induction
    from .scorers.attention import prefix_matching as prefix_matching
    from .scorers.attention import previous_token as previous_token
    from .scorers.composing import composition as composition
    from .scorers.direct import direct_effect as direct_effect
    from .scorers.labels import demonstration_weights as demonstration_weights
    from .scorers.labels import label_attention as label_attention
    from .scorers.masked import AttentionScorer as AttentionScorer
    from .scorers.masked import observe as observe
    from .scorers.matching import qk_trace as qk_trace
    from .scorers.ov import ov_eigenvalues as ov_eigenvalues
    from .scorers.streaming import patterns as patterns
    from .scorers.values import copying as copying
    from .training.checkpoints import over_checkpoints as over_checkpoints
    from .training.components import before_and_after as before_and_after
    from .training.components import loss_components as loss_components
    from .training.components import loss_slope as loss_slope
    from .training.coupling import turn_together as turn_together
    from .training.curves import training_curves as training_curves
    from .training.families import family_curves as family_curves
    from .training.families import train_families as train_families
    from .training.phases import phase_window as phase_window
    from .training.recipe import Recipe as Recipe
    from .training.recipe import log_spaced as log_spaced
    from .training.trainer import train as train

if not TYPE_CHECKING:  # hidden from type checkers: to them a `__getattr__` would make every typo a valid name
    from importlib import import_module as _import_module

    # module -> its public names, in the order of the README
    _CONTENTS = {
        "loading": ("load",),
        "prompts": (
            "Prompts",
            "as_prompts",
            "repeated_tokens",
            "few_shot",
            "word_episodes",
            "pairs",
            "with_answers",
        ),
        "scorers.masked": ("observe", "AttentionScorer"),
        "scorers.streaming": ("patterns",),
        "scorers.attention": (
            "induction",
            "prefix_matching",
            "previous_token",
            "duplicate_token",
        ),
        "scorers.labels": ("label_attention", "demonstration_weights"),
        "scorers.values": ("copying",),
        "scorers.ov": ("ov_eigenvalues",),
        "scorers.matching": ("qk_trace",),
        "scorers.composing": ("composition",),
        "scorers.direct": ("direct_effect",),
        "heads": ("Head", "summarise", "head_table", "top_heads", "random_heads", "random_sets", "compare"),
        "metrics": (
            "loss_by_position",
            "icl_score",
            "repeat_loss",
            "loss",
            "logit_difference",
            "probability",
            "kl_to",
            "label_accuracy",
        ),
        "interventions.ablation": ("ablate", "ablation_curve", "knock_out"),
        "interventions.patching": ("patch",),
        "interventions.paths": ("path_patch",),
        "interventions.attributing": ("attribution",),
        "interventions.lasting": ("edited",),
        "interventions.engine": ("sweep",),
        "interventions.edits": (
            "Zero",
            "ZeroValues",
            "Mean",
            "Resample",
            "FromRun",
            "Scale",
            "Add",
            "KnockOut",
        ),
        "kernel.studying": ("few_shot_study", "FewShotStudy"),
        "kernel.data": ("classification", "LabelledTexts"),
        "kernel.episodes": ("draw_episodes", "Episodes"),
        "kernel.evaluating": ("in_context",),
        "kernel.reconstruction": ("reconstruct", "sum_heads"),
        "kernel.writing": ("label_writing",),
        "kernel.controls": ("control_weights", "permuted_run"),
        "kernel.splits": ("held_out", "reconstruction_table"),
        "kernel.representing": ("representations",),
        "kernel.regression": ("kernel_regression", "explicit_similarity"),
        "kernel.nexttoken": ("next_token_similarity",),
        "kernel.aligning": ("kernel_alignment", "fitted_bandwidth"),
        "kernel.mapping": ("demonstration_attention",),
        "kernel.quoting": ("quoted_votes",),
        "kernel.probes": ("probe",),
        "kernel.causal": ("label_knock_out",),
        "kernel.reweighting": ("fit_label_weights", "reweighted"),
        "kernel.anchors": ("label_flow", "label_auc"),
        "kernel.vectors": ("function_vectors",),
        "kernel.phenomena": (
            "retrieval_effect",
            "label_format_effect",
            "input_shift_effect",
            "order_effect",
        ),
        "kernel.markov": ("hidden_markov_tasks",),
        "kernel.theory": ("kernel_theory",),
        "training.recipe": ("Recipe", "log_spaced"),
        "training.trainer": ("train",),
        "training.families": ("family_curves", "train_families"),
        "training.checkpoints": ("over_checkpoints",),
        "training.curves": ("training_curves",),
        "training.phases": ("phase_window",),
        "training.coupling": ("turn_together",),
        "training.components": ("loss_components", "loss_slope", "before_and_after"),
        "evidence.cooccurring": ("co_occurrence",),
        "evidence.smearing": ("co_perturbation",),
        "evidence.ablating": ("direct_ablation",),
        "evidence.behaviours": ("generality",),
        "evidence.circuits": ("mechanism",),
        "evidence.across": ("continuity",),
        "evidence.gathering": ("six_arguments",),
        "evidence_page": ("write_evidence",),
        "plots.figures": ("head_map", "loss_plot"),
        "plots.effects": ("effect_map",),
        "plots.curves": ("curve_plot", "exact_plot"),
        "plots.lines": ("line_plot",),
        "plots.tables": ("interval_plot",),
        "plots.dynamics": ("phase_plot",),
        "plots.components": ("component_plot", "slope_plot"),
        "plots.judgements": ("evidence_plot",),
        "plots.demonstrations": ("demonstration_map",),
        "plots.views": ("attention_view",),
        "plots.votes": ("vote_view",),
        "page": ("write_report",),
        "fewshot_page": ("write_fewshot_page",),
    }
    _HOME = {name: module for module, names in _CONTENTS.items() for name in names}
    __all__ = [*_HOME, "__version__"]

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(_import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value  # the next look-up does not come here
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
