"""What answers for each role: a server, or a model in this process, made once for all its roles."""

from __future__ import annotations

from typing import Any

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.language_model.roles import Role, is_local
from polycode_plugins.explainers.language_model.transport.server import Backend, OpenAIServer


class Backends:
    """Makes what a role is asked at.

    Args:
        backend: for roles of which no other place is said: an object, or "local:NAME".
        base_url: the same as a URL.
        timeout, plain_http: see `OpenAIServer`.
        local: for models in this process, see `LocalModel`.

    Raises:
        DataError: where both are given, or neither is a backend's name.
    """

    def __init__(
        self,
        backend: Backend | str | None,
        base_url: str | None,
        *,
        timeout: float,
        plain_http: bool,
        **local: Any,
    ) -> None:
        if backend is not None and base_url is not None:
            raise DataError("give a backend or base_url, not both")
        if isinstance(backend, str):
            if not is_local(backend):
                raise DataError(
                    f"the backend {backend!r} is not local:NAME, for example local:gpt2"
                )
            backend, base_url = None, backend
        #: The URL of roles of which no other is said; None where an object was given or OpenAI's.
        self.first = base_url
        self._given = backend
        self._server: dict[str, Any] = {"timeout": timeout, "plain_http": plain_http}
        self._local = {name: value for name, value in local.items() if value is not None}
        self._made: dict[tuple[str | None, str | None], Backend] = {}

    def make(self, role: Role) -> Backend:
        """The backend of a role.

        Raises:
            DataError, ModelError, PluginError: where it cannot be made.
        """
        if self._given is not None and role.url is None:
            return self._given
        place = role.url, None if is_local(role.url) else role.key_variable
        if place not in self._made:
            self._made[place] = self._new(role)
        return self._made[place]

    def _new(self, role: Role) -> Backend:
        if role.url is not None and is_local(role.url):
            name = role.url.removeprefix("local:")
            if not name:
                raise DataError(f"{role.url!r} is not local:NAME, for example local:gpt2")
            from polycode_plugins.explainers.language_model.local import LocalModel

            return LocalModel(name, **self._local)
        variable = role.key_variable or "OPENAI_API_KEY"
        return OpenAIServer(role.url, key_variable=variable, **self._server)
