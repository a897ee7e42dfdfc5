"""Explaining and simulating with a language model, behind a server or in this process."""

from polycode_plugins.explainers.remote.explainer import OpenAIExplainer
from polycode_plugins.explainers.remote.failures import BudgetError, RemoteError
from polycode_plugins.explainers.remote.local import LocalModel
from polycode_plugins.explainers.remote.probe import Capabilities
from polycode_plugins.explainers.remote.server import OpenAIServer
from polycode_plugins.explainers.remote.store import Store

__all__ = [
    "BudgetError",
    "Capabilities",
    "LocalModel",
    "OpenAIExplainer",
    "OpenAIServer",
    "RemoteError",
    "Store",
]
