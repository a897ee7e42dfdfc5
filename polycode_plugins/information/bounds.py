"""Variational bounds of mutual information as functions of a matrix of scores.

`scores` [critics, batch, batch] holds T(x_i, y_j) of every critic; its diagonal are the pairs that
occurred together, the rest stands for the product of the margins. All values are nats. The best
critic of each bound is T = ln p(x, y) / p(x) p(y), up to what the bound leaves free.

    mine     Donsker & Varadhan 1983: E_p[T] - ln E_q[e^T]           (Belghazi et al. 2018, eq. 10)
    nwj      Nguyen, Wainwright & Jordan 2010: E_p[T] - E_q[e^T] + 1
    infonce  van den Oord et al. 2018: E_p[T - ln mean_j e^{T_ij}], at most ln(batch)
    smile    Song & Ermon 2020: trained on the Jensen-Shannon divergence, valued as `mine` with
             e^T clipped to [e^-5, e^5]: less variance, but no longer a bound
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

#: Weight of the newest batch in the moving average of E_q[e^T].
AVERAGING = 0.05
#: SMILE's clip of the score, tau of the paper.
CLIP = 5.0
#: exp of a larger score would let one pair decide the step of a NWJ critic.
_EXPONENT = 20.0


def log_mean_exp(scores: Tensor, dim: int = -1) -> Tensor:
    """ln of the mean of e^`scores` along `dim`, never overflowing."""
    return torch.logsumexp(scores, dim) - math.log(scores.shape[dim])


def naive_log_mean_exp(scores: Tensor, dim: int = -1) -> Tensor:
    """The same as first published: infinite as soon as one float32 score exceeds 88."""
    return torch.log(torch.exp(scores).mean(dim))


def apart(scores: Tensor) -> Tensor:
    """ln of the mean of e^T over the pairs that did not occur together, [critics]."""
    size = scores.shape[-1]
    mask = scores.new_zeros(size, size).fill_diagonal_(-torch.inf)
    return torch.logsumexp((scores + mask).flatten(1), 1) - math.log(size * (size - 1))


class MovingAverage:
    """ln of the running mean of E_q[e^T], the denominator of MINE's gradient.

    The gradient of ln E_q[e^T] taken on a batch is biased, since the batch stands in the numerator
    and in the denominator. Dividing by a running mean instead removes that (Belghazi et al. 2018,
    section 3.2, equation 12).
    """

    def __init__(self) -> None:
        self.log_mean: Tensor | None = None

    def update(self, batch: Tensor) -> Tensor:
        """Take in the batch's log-mean-exp [critics] and return the running one."""
        batch = batch.detach()
        if self.log_mean is None:
            self.log_mean = batch
        else:
            self.log_mean = torch.logaddexp(
                self.log_mean + math.log1p(-AVERAGING), batch + math.log(AVERAGING)
            )
        return self.log_mean


def mine_loss(scores: Tensor, average: MovingAverage) -> Tensor:
    """[critics]; its gradient is that of -(E_p[T] - ln E_q[e^T]) with the bias corrected."""
    together = scores.diagonal(dim1=1, dim2=2).mean(1)
    others = apart(scores)
    return torch.exp(others - average.update(others)) - together


def nwj_loss(scores: Tensor, average: MovingAverage) -> Tensor:
    """[critics], minus the NWJ bound (less its constant); scores above 20 count as 20."""
    together = scores.diagonal(dim1=1, dim2=2).mean(1)
    return torch.exp(apart(scores.clamp(max=_EXPONENT))) - together


def infonce_loss(scores: Tensor, average: MovingAverage) -> Tensor:
    """[critics], the mean of x telling its y among the batch and y its x."""
    together = scores.diagonal(dim1=1, dim2=2).mean(1)
    both = torch.logsumexp(scores, 1).mean(1) + torch.logsumexp(scores, 2).mean(1)
    return both / 2 - together


def smile_loss(scores: Tensor, average: MovingAverage) -> Tensor:
    """[critics], telling pairs from non-pairs: minus the Jensen-Shannon bound of the f-GAN."""
    size = scores.shape[-1]
    together = scores.diagonal(dim1=1, dim2=2)
    others = F.softplus(scores).sum((1, 2)) - F.softplus(together).sum(1)
    return F.softplus(-together).mean(1) + others / (size * (size - 1))


@dataclass(frozen=True)
class Bound:
    """How a critic is trained, and how it is valued on samples held out.

    value: the bound [critics]. shares: every sample's part in it [critics, samples], which average
    to the bound and hold its first-order influence: sample i moves E_p by T_ii and E_q by its row
    and its column, so the spread of the shares gives the standard error of the whole.
    """

    loss: Callable[[Tensor, MovingAverage], Tensor]
    value: Callable[[Tensor], Tensor]
    shares: Callable[[Tensor], Tensor]


def mine_value(scores: Tensor) -> Tensor:
    """The Donsker-Varadhan bound [critics]."""
    return scores.diagonal(dim1=1, dim2=2).mean(1) - apart(scores)


def mine_shares(scores: Tensor) -> Tensor:
    """Its shares [critics, samples]."""
    log_mean = apart(scores)
    return scores.diagonal(dim1=1, dim2=2) - log_mean[:, None] - _pull(scores, log_mean)


def nwj_value(scores: Tensor) -> Tensor:
    """The NWJ bound [critics]."""
    return scores.diagonal(dim1=1, dim2=2).mean(1) - torch.exp(apart(scores)) + 1


def nwj_shares(scores: Tensor) -> Tensor:
    """Its shares [critics, samples]."""
    log_mean = apart(scores)
    mean = torch.exp(log_mean)[:, None]
    return scores.diagonal(dim1=1, dim2=2) - mean * (1 + _pull(scores, log_mean)) + 1


def smile_value(scores: Tensor) -> Tensor:
    """The Donsker-Varadhan formula [critics] with the second term's scores clipped to [-5, 5]."""
    return scores.diagonal(dim1=1, dim2=2).mean(1) - apart(scores.clamp(-CLIP, CLIP))


def smile_shares(scores: Tensor) -> Tensor:
    """Its shares [critics, samples]."""
    clipped = scores.clamp(-CLIP, CLIP)
    log_mean = apart(clipped)
    return scores.diagonal(dim1=1, dim2=2) - log_mean[:, None] - _pull(clipped, log_mean)


def infonce_value(scores: Tensor) -> Tensor:
    """InfoNCE [critics] among all samples given: at most ln(samples)."""
    return infonce_shares(scores).mean(1)


def infonce_shares(scores: Tensor) -> Tensor:
    """Its shares [critics, samples]."""
    return scores.diagonal(dim1=1, dim2=2) - log_mean_exp(scores, 2)


def _pull(scores: Tensor, log_mean: Tensor) -> Tensor:
    """Row plus column mean of e^T over the overall mean, less 2: mean 0, [critics, samples]."""
    weights = torch.exp(scores - log_mean[:, None, None])
    weights.diagonal(dim1=1, dim2=2).zero_()
    return (weights.sum(1) + weights.sum(2)) / (scores.shape[-1] - 1) - 2


BOUNDS = {
    "mine": Bound(mine_loss, mine_value, mine_shares),
    "nwj": Bound(nwj_loss, nwj_value, nwj_shares),
    "infonce": Bound(infonce_loss, infonce_value, infonce_shares),
    "smile": Bound(smile_loss, smile_value, smile_shares),
}

#: Those whose expected held-out value never exceeds the information.
LOWER_BOUNDS = ("mine", "nwj", "infonce")
