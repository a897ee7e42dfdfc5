"""Explaining units of a network and scoring the explanations: neurons, projections, directions.

comparison = pc.compare("gpt2-xl", "texts.jsonl", "blocks.*.mlp.hook_post")
print(comparison.contrasts[-1])
"""

from polycode_plugins.explainers.base import (
    Explainer,
    Explanation,
    Judge,
    JudgeTask,
    PaidExplainer,
    PaidJudge,
    PaidSimulator,
    Record,
    RecordSet,
    Simulation,
    SimulationTask,
    Simulator,
    UnitRecords,
    Verdict,
    levels_of,
)
from polycode_plugins.explainers.comparison import contrasts
from polycode_plugins.explainers.comparison.compare import compare, make_explainer
from polycode_plugins.explainers.comparison.decisions import Decision
from polycode_plugins.explainers.comparison.outcome import ComparedUnit, Comparison
from polycode_plugins.explainers.comparison.recorded import compare_records
from polycode_plugins.explainers.comparison.statistics.noise import Noise
from polycode_plugins.explainers.costs import Cost
from polycode_plugins.explainers.lookup import TokenLookupExplainer, TokenLookupSimulator
from polycode_plugins.explainers.ngram import NgramExplainer, NgramSimulator
from polycode_plugins.explainers.records.openai_records import read_neuron_records
from polycode_plugins.explainers.records.protocols import (
    FAIR,
    MARSHALL_KIRCHNER,
    OPENAI,
    Protocol,
)
from polycode_plugins.explainers.scoring.evaluation import Evaluation, Scoring, evaluate
from polycode_plugins.explainers.units.autoencoder.encoder import Encoder
from polycode_plugins.explainers.units.autoencoder.features import Features, features_of
from polycode_plugins.explainers.units.autoencoder.folder import read_autoencoder
from polycode_plugins.explainers.units.base import Units
from polycode_plugins.explainers.units.components import independent, principal
from polycode_plugins.explainers.units.covariances import covariance_directions
from polycode_plugins.explainers.units.directions import directions
from polycode_plugins.explainers.units.neurons import neurons
from polycode_plugins.explainers.units.projections import projections
from polycode_plugins.explainers.units.random_weights import random_weights
from polycode_plugins.explainers.written import WrittenExplanations

__all__ = [
    "FAIR",
    "MARSHALL_KIRCHNER",
    "OPENAI",
    "ComparedUnit",
    "Comparison",
    "Cost",
    "Decision",
    "Encoder",
    "Evaluation",
    "Explainer",
    "Explanation",
    "Features",
    "Judge",
    "JudgeTask",
    "NgramExplainer",
    "NgramSimulator",
    "Noise",
    "PaidExplainer",
    "PaidJudge",
    "PaidSimulator",
    "Protocol",
    "Record",
    "RecordSet",
    "Scoring",
    "Simulation",
    "SimulationTask",
    "Simulator",
    "TokenLookupExplainer",
    "TokenLookupSimulator",
    "UnitRecords",
    "Units",
    "Verdict",
    "WrittenExplanations",
    "compare",
    "compare_records",
    "contrasts",
    "covariance_directions",
    "directions",
    "evaluate",
    "features_of",
    "independent",
    "levels_of",
    "make_explainer",
    "neurons",
    "principal",
    "projections",
    "random_weights",
    "read_autoencoder",
    "read_neuron_records",
]
