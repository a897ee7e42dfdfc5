"""Explaining and simulating with a language model, behind a server or in this process."""

from polycode_plugins.explainers.language_model.capabilities import Capabilities
from polycode_plugins.explainers.language_model.explainer import OpenAIExplainer
from polycode_plugins.explainers.language_model.local import LocalModel
from polycode_plugins.explainers.language_model.transport.answer_store import Store
from polycode_plugins.explainers.language_model.transport.failures import BudgetError, RemoteError
from polycode_plugins.explainers.language_model.transport.server import OpenAIServer

__all__ = [
    "BudgetError",
    "Capabilities",
    "LocalModel",
    "OpenAIExplainer",
    "OpenAIServer",
    "RemoteError",
    "Store",
]
