"""Functions that run in processes beside this one, where there are some."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

from polycode_plugins.errors import DataError
from polycode_plugins.metrics import processes
from polycode_plugins.metrics.spectrum.effective_dimensions import effective_dimensions
from polycode_plugins.metrics.spectrum.law.power_law import fit_power_law
from polycode_plugins.metrics.spectrum.rows.correlation import RowCorrelation

VALUES = np.arange(1.0, 81) ** -1.0


@pytest.fixture(scope="module")
def beside():
    """Two processes, from the first call on."""
    with processes.processes(2, patience=0):
        yield


@pytest.fixture
def alone(monkeypatch):
    """None so far, whatever other tests have begun."""
    monkeypatch.setattr(processes, "_pool", None)


def where(function, *given):
    """The answer, and whether it came from another process."""
    sent = []
    pool = processes._pool
    assert pool is not None
    submit = pool.executor().submit
    pool.executor().submit = lambda *a: sent.append(a) or submit(*a)
    try:
        return function(*given), bool(sent)
    finally:
        pool.executor().submit = submit


def test_the_answer_is_that_of_this_process(beside):
    rows = RowCorrelation(knots=(1.0, 80.0), lag=(0.6, 0.1), common=(0.1, 0.0), length=20.0)
    found, sent = where(lambda: effective_dimensions(VALUES, 900, rows=rows))
    assert sent
    assert found == effective_dimensions.__wrapped__(VALUES, 900, rows=rows)
    fit, sent = where(lambda: fit_power_law(VALUES, 900, rows=rows))
    assert sent
    from polycode_plugins.metrics.spectrum.law import power_law

    power_law._fitted.cache_clear()
    held, processes._pool = processes._pool, None
    try:
        here = fit_power_law(VALUES, 900, rows=rows)
    finally:
        processes._pool = held
    assert fit == here


def test_what_cannot_be_sent_is_no_reason_to_work_it_out_here(beside):
    with pytest.raises(TypeError, match="cannot pickle 'generator'"):
        effective_dimensions((value for value in VALUES), 900)


def test_modules_that_cloudpickle_sends_by_value_are_sent_by_name(alone):
    import cloudpickle

    registered = [processes, sys.modules[effective_dimensions.__module__]]
    for module in registered:
        cloudpickle.register_pickle_by_value(module)
    try:
        with processes.processes(2, patience=0):
            found, sent = where(lambda: effective_dimensions(VALUES, 900))
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)
    assert sent
    assert found == effective_dimensions.__wrapped__(VALUES, 900)


def test_what_is_raised_there_is_raised_here(beside):
    with pytest.raises(DataError, match="eigenvalues") as here:
        effective_dimensions.__wrapped__(-VALUES, 900)
    with pytest.raises(DataError) as there:
        effective_dimensions(-VALUES, 900)
    assert str(there.value) == str(here.value)


def test_what_is_warned_of_is_warned_of_here(monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # which is not for the other process

        def careless():
            warnings.warn("a guess", RuntimeWarning, stacklevel=1)
            return 3

        value, error, said = processes._answer(careless, (), {})
    assert (value, error) == (3, None)
    assert [(str(message), kind) for message, kind, _, _ in said] == [("a guess", RuntimeWarning)]

    class Executor:
        def submit(self, *_):
            class Done:
                def result(self):
                    return value, error, said

            return Done()

    pool = processes._Pool(2, 0)
    pool._executor = Executor()
    monkeypatch.setattr(processes, "_pool", pool)
    with pytest.warns(RuntimeWarning, match="a guess"):
        assert effective_dimensions(VALUES, 900) == 3


def test_a_process_that_is_killed_costs_no_answer(alone):
    with processes.processes(2, patience=0):
        before = effective_dimensions(VALUES, 900)
        for pid in list(processes._pool._executor._processes):
            os.kill(pid, signal.SIGKILL)
        assert effective_dimensions(VALUES, 900) == before
        assert effective_dimensions(VALUES, 900) == before
    assert processes._pool is None


def test_short_work_begins_none(alone):
    with processes.processes(2, patience=60):
        effective_dimensions(VALUES, 900)
        assert processes._pool._executor is None
    with processes.processes(1, patience=0):
        assert processes._pool is None


@pytest.mark.parametrize("error", [OSError(38, "Function not implemented"), ImportError("_multi")])
def test_a_system_without_semaphores_has_none(alone, monkeypatch, error):
    import loky

    def refused(*_, **__):
        raise error

    monkeypatch.setattr(loky, "ProcessPoolExecutor", refused)
    with processes.processes(2, patience=0):
        assert effective_dimensions(VALUES, 900).stable_rank is not None
        assert processes._pool._executor is None


def test_a_process_that_may_begin_none_has_none(alone):
    def work(said):
        with processes.processes(2, patience=0):
            effective_dimensions(VALUES, 900)
            said.send(processes._pool._executor)

    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=work, args=(there,), daemon=True)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert here.recv() is None


def test_a_fork_waits_for_no_answer_of_theirs(alone):
    with processes.processes(2, patience=0):
        expected = effective_dimensions(VALUES, 900)

        def work():
            assert effective_dimensions(VALUES, 900) == expected
            with processes.processes(2, patience=60):
                assert processes._pool is not None

        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join(20)
        ended = process.exitcode
        process.kill()
    assert ended == 0


def test_those_of_another_thread_are_shared(beside):
    held = processes._pool
    with processes.processes(2, patience=0):
        assert processes._pool is held
    assert processes._pool is held


PROGRAM = """
import sys, time
print("main runs", flush=True)  # once: there is no guard
from polycode_plugins.metrics.processes import processes
from polycode_plugins.metrics import processes as module
from polycode_plugins.metrics.spectrum.effective_dimensions import effective_dimensions
with processes(2, patience=0):
    effective_dimensions([3.0, 2.0, 1.0], 900)
    print("torch" in sys.modules, *module._pool._executor._processes, flush=True)
    time.sleep(60)
"""


def test_what_begins_them_may_be_killed_and_needs_neither_guard_nor_torch(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "main runs\n"
        torch, *pids = run.stdout.readline().split()
        assert (torch, len(pids)) == ("False", 2)
        run.kill()
        run.wait()
    for _ in range(100):
        if not any(alive(int(pid)) for pid in pids):
            return
        time.sleep(0.1)
    pytest.fail("a process outlived what began it")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
