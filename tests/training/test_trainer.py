"""A real short training with transformers' Trainer, with and without the callback."""

from __future__ import annotations

import math
import os

import pytest
import torch

import polycode_plugins as pc
from polycode_plugins.training import History

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from polycode_plugins.training.trainer import TrainerMonitor  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]
SITES = ["transformer.h.0", "transformer.h.1"]


class Reporter(transformers.TrainerCallback):
    """What a reporter such as TensorBoard's is given."""

    def __init__(self) -> None:
        self.logs: list[tuple[int, dict[str, float]]] = []

    def on_log(self, args, state, control, logs=None, **others):
        assert not self.closed
        self.logs.append((state.global_step, dict(logs)))

    def on_train_begin(self, args, state, control, **others):
        self.closed = False

    def on_train_end(self, args, state, control, **others):
        self.closed = True  # MLflow ends its run here: what comes later is lost


class Stop(transformers.TrainerCallback):
    """Ends a training early, as early stopping does."""

    def __init__(self, moment: str) -> None:
        self.moment = moment

    def on_evaluate(self, args, state, control, **others):
        control.should_training_stop |= self.moment == "evaluate"

    def on_step_end(self, args, state, control, **others):
        control.should_training_stop |= self.moment == "step" and state.global_step == 4


def run(folder, *, resume=False, steps=8, reporter=None, save=False, stop="", **options):
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=64, n_positions=16, n_embd=16, n_layer=2, n_head=2,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 64, (64, 16), generator=draw)
    held = torch.randint(1, 64, (24, 16), generator=draw)
    arguments = transformers.TrainingArguments(
        str(folder / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        logging_steps=2,
        report_to="none",
        use_cpu=True,
        save_strategy="steps" if save else "no",
        save_steps=4,
        eval_strategy="steps" if stop == "evaluate" else "no",
        eval_steps=4,
        disable_tqdm=True,
        learning_rate=1e-2,
    )
    data = [{"input_ids": row, "labels": row} for row in tokens]
    reporters = [reporter or Reporter(), Stop(stop)]
    trainer = transformers.Trainer(
        model, arguments, train_dataset=data, eval_dataset=data[:8], callbacks=reporters
    )
    watch = None
    if options:
        settings = {"every": 3, "share": math.inf, "out": folder / "curves"} | options
        watch = TrainerMonitor(trainer, held, SITES, **settings)
        trainer.add_callback(watch)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, watch


def losses(trainer):
    kept = ("loss", "grad_norm", "learning_rate", "epoch", "step")
    history = trainer.state.log_history
    return [{k: one[k] for k in kept if k in one} for one in history if "loss" in one]


def test_losses_are_bit_equal_and_numbers_reach_the_reporters(tmp_path):
    plain, _ = run(tmp_path / "plain")
    reporter = Reporter()
    trainer, watch = run(tmp_path / "watched", reporter=reporter, metrics=["spectrum", "cka"])
    assert len(losses(plain)) == 4
    assert losses(trainer) == losses(plain)
    for one, other in zip(plain.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [p.step for p in watch.history] == [0, 3, 6, 8]
    assert all(not p.problems for p in watch.history)
    told = [(s, logs) for s, logs in reporter.logs if "polycode/seconds" in logs]
    assert [step for step, _ in told] == [0, 3, 6, 8]
    for site in SITES:
        for name in ("spectrum.exponent", "spectrum.exponent_low", "spectrum.effective_rank"):
            assert f"polycode/{site}/{name}" in told[-1][1]
        curve = [logs[f"polycode/{site}/cka.to_first"] for _, logs in told]
        assert curve[0] == pytest.approx(1.0)
        assert curve[-1] < 0.99
        history = History.load(tmp_path / "watched" / "curves")
        assert history.curve(site, "cka.to_first")[0] == [0, 3, 6, 8]
    assert (tmp_path / "watched" / "curves" / "training.html").stat().st_size > 10_000


@pytest.mark.parametrize("moment", ["evaluate", "step"])
def test_the_last_numbers_reach_reporters_that_close_when_training_is_stopped(tmp_path, moment):
    reporter = Reporter()
    _, watch = run(tmp_path, stop=moment, reporter=reporter, metrics=["spectrum"])
    assert [p.step for p in watch.history] == [0, 3, 4]
    told = [step for step, logs in reporter.logs if "polycode/seconds" in logs]
    assert told == [0, 3, 4]


def test_numbers_are_those_of_the_model_as_it_was(tmp_path):
    trainer, watch = run(tmp_path, metrics=["spectrum"])
    trainer.model.eval()
    held = torch.cat([batch.inputs for batch in watch.monitor._batch.batches])
    analysis = pc.analyze(trainer.model, held, ["spectrum"], SITES)
    for site in SITES:
        value, *_ = watch.history.points[-1].numbers[site]["spectrum.exponent"]
        assert value == pytest.approx(analysis[site, "spectrum"].exponent, rel=1e-9)


def test_a_logger_that_raises_does_not_end_the_training(tmp_path, caplog):
    class Broken(Reporter):
        def on_log(self, args, state, control, logs=None, **others):
            if "polycode/seconds" in logs:
                raise OSError("the disk is full")

    trainer, watch = run(tmp_path, reporter=Broken(), metrics=["spectrum"])
    assert trainer.state.global_step == 8
    assert len(watch.history) == 4
    assert "was measured and not logged: the disk is full" in caplog.text


def test_a_resumed_training_goes_on_with_its_curves(tmp_path):
    run(tmp_path, steps=4, save=True, metrics=["spectrum", "cka"])
    _, watch = run(tmp_path, steps=8, resume=True, save=True, metrics=["spectrum", "cka"])
    assert [p.step for p in watch.history] == [0, 3, 4, 6, 8]
    curve = watch.history.curve(SITES[1], "cka.to_first")[1]
    assert curve[0][0] == pytest.approx(1.0)
    assert all(value < 0.999 for value, *_ in curve[1:])


def test_other_processes_than_the_first_measure_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(transformers.Trainer, "is_world_process_zero", lambda self: False)
    _, watch = run(tmp_path, metrics=["spectrum"])
    assert len(watch.history) == 0
    assert not os.path.exists(tmp_path / "curves")
