"""What may be spent, by all sessions of a store together."""

from __future__ import annotations

import asyncio

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.language_model.transport.answer_store import Store
from polycode_plugins.explainers.language_model.transport.failures import BudgetError
from polycode_plugins.explainers.language_model.transport.prices import Prices
from polycode_plugins.explainers.language_model.transport.request import Request


class Budget:
    """Dollars that everything in a store may cost.

    What is under way counts at its highest price: the longest answer, thought included, and the
    tokens sent as far as they can be estimated. What came counts as the server says.

    Args:
        store: what was spent before is written there.
        prices: dollars per million tokens; without them nothing is counted.
        limit: dollars at most; None for no limit.

    Raises:
        DataError: for a limit without prices, or below 0.
    """

    def __init__(
        self, store: Store, prices: Prices | None = None, limit: float | None = None
    ) -> None:
        if limit is not None and prices is None:
            raise DataError("a budget needs prices: give the table of prices as well")
        if limit is not None and not limit >= 0:
            raise DataError(f"the budget is {limit}; give dollars of at least 0")
        self.prices, self.limit, self._store = prices, limit, store
        self._spent, self._reserved = store.spent().dollars, 0.0
        self._settled = asyncio.Event()

    def price(self, request: Request, tokens_in: int, tokens_out: int) -> float:
        """Dollars for so many tokens of the request's model; 0 without prices."""
        if self.prices is None:
            return 0.0
        return self.prices.dollars(request.model, tokens_in, tokens_out)

    def most(self, request: Request) -> float:
        """Dollars that a request may cost at most."""
        if self.prices is None:
            return 0.0
        return self.price(request, request.estimated_in(), request.most_out)

    async def reserve(self, dollars: float, stopped: asyncio.Event) -> None:
        """Set the highest price aside; over the budget, wait for what is under way.

        Raises:
            BudgetError: where nothing is under way that could turn out cheaper.
        """
        while self.limit is not None and not stopped.is_set():
            if self._spent + self._reserved + dollars <= self.limit:
                break
            if self._reserved == 0:
                raise BudgetError(
                    f"the budget of ${self.limit:g} is spent: ${self._spent:.4f} so far, and "
                    f"the next request may take ${dollars:.4f}; all "
                    f"{self._store.spent().answers} answers are saved in "
                    f"{str(self._store.path)!r}, so repeat the same command with a larger "
                    "budget to go on"
                )
            self._settled.clear()
            await self._settled.wait()
        self._reserved += dollars

    def settle(self, reserved: float, paid: float) -> None:
        """Count what was paid in place of what was set aside."""
        self._reserved -= reserved
        self._spent += paid
        if self._reserved < 1e-12:  # what is left is rounding
            self._reserved = 0.0
        self._settled.set()

    def release(self) -> None:
        """Wake whoever waits, since the run is stopped."""
        self._settled.set()
