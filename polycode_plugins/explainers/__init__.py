"""Explaining units of a network and scoring the explanations: neurons, projections, directions.

comparison = pc.compare("gpt2-xl", "texts.jsonl", "blocks.*.mlp.hook_post")
print(comparison.contrasts[-1])
"""

from polycode_plugins.explainers.base import (
    Cost,
    Explainer,
    Explanation,
    Judge,
    JudgeTask,
    Record,
    RecordSet,
    Simulation,
    SimulationTask,
    Simulator,
    UnitRecords,
    Verdict,
    levels_of,
)
from polycode_plugins.explainers.comparing import compare, make_explainer
from polycode_plugins.explainers.comparison import ComparedUnit, Comparison
from polycode_plugins.explainers.components import independent, principal
from polycode_plugins.explainers.control import random_weights
from polycode_plugins.explainers.evaluation import Evaluation, evaluate
from polycode_plugins.explainers.lookup import TokenLookupExplainer, TokenLookupSimulator
from polycode_plugins.explainers.neuron_records import read_neuron_records
from polycode_plugins.explainers.ngram import NgramExplainer, NgramSimulator
from polycode_plugins.explainers.protocols import MARSHALL_KIRCHNER, OPENAI, Protocol
from polycode_plugins.explainers.units import Units, directions, neurons, projections

__all__ = [
    "MARSHALL_KIRCHNER",
    "OPENAI",
    "ComparedUnit",
    "Comparison",
    "Cost",
    "Evaluation",
    "Explainer",
    "Explanation",
    "Judge",
    "JudgeTask",
    "NgramExplainer",
    "NgramSimulator",
    "Protocol",
    "Record",
    "RecordSet",
    "Simulation",
    "SimulationTask",
    "Simulator",
    "TokenLookupExplainer",
    "TokenLookupSimulator",
    "UnitRecords",
    "Units",
    "Verdict",
    "compare",
    "directions",
    "evaluate",
    "independent",
    "levels_of",
    "make_explainer",
    "neurons",
    "principal",
    "projections",
    "random_weights",
    "read_neuron_records",
]
