"""Parts of a proof side by side give what they give alone; and a stored result knows the code it depends on."""

from pathlib import Path

import pytest

from fabrica.proofs import Plan, fingerprint, names
from fabrica.proofs.depends import modules
from fabrica.proofs.spread import spread


def threads_and(job: int, plan: Plan) -> tuple[int, int]:
    import torch

    if job < 0:
        raise ValueError(f"part {job} is broken")
    return job * job, torch.get_num_threads()


def test_two_processes_give_what_one_gives_in_order_and_on_one_thread_each():
    told = []
    plan = Plan(workers=2, progress=lambda *at: told.append(at))
    assert spread(threads_and, [3, 1, 2], plan) == [(9, 1), (1, 1), (4, 1)]
    assert told[-1] == (3, 3, "runs")
    assert spread(threads_and, [3, 1, 2], Plan(workers=1)) == [(9, 1), (1, 1), (4, 1)]


def test_an_error_in_a_part_is_the_proofs_error():
    with pytest.raises(ValueError, match="part -1 is broken"):
        spread(threads_and, [1, -1], Plan(workers=2))


@pytest.mark.parametrize("name", names())
def test_a_proof_depends_on_its_own_files_and_the_loop_it_trains_with_but_not_on_the_store(name):
    found = {f"{f.parent.name}/{f.name}" for f in modules(name)}
    own = {f"proofs/{name}.py", f"systems/{name.removesuffix('_real')}.py"}
    assert own <= found
    assert not any(f.startswith(("corpus/", "cli/", "safe/", "sources/")) for f in found)
    others = [f for f in found - own if f.startswith(("proofs/", "systems/")) and not Path(f).stem.startswith("_")]
    assert not others
    assert len(fingerprint(name)) == 16


def test_what_a_package_re_exports_is_found_where_it_is_written():
    found = {f"{f.parent.name}/{f.name}" for f in modules("symile")}
    assert {"train/loop.py", "models/bundle.py", "phantom/xor.py", "objectives/multilinear.py"} <= found
