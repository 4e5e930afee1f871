"""Synthetic bodies: every organ in every volume, a grey of its own in each contrast, one labelled in each set."""

import numpy as np

from fabrica.phantom import bodies


def test_every_organ_is_there_and_has_the_grey_of_the_contrast():
    for contrast in (0, 3, 8):
        found = bodies.body(np.random.default_rng(contrast), contrast, noise=0.0)
        grey = bodies.greys(contrast)
        for number in range(1, 1 + len(bodies.ORGANS)):
            inside = found.labels == number
            assert inside.sum() > 20, bodies.ORGANS[number - 1]
            assert abs(np.median(found.image[inside]) - grey[number]) < 0.15


def test_contrasts_differ_and_stay_the_same():
    every = [tuple(bodies.greys(c)) for c in range(9)]
    assert len(set(every)) == 9
    assert np.allclose(sorted(every[0]), sorted(every[5]))
    again = bodies.records(1, 4, organs=("liver",), contrast=2, source="a")[0]
    once = bodies.records(1, 4, organs=("liver",), contrast=2, source="a")[0]
    assert again == once


def test_a_set_labels_one_organ_and_never_the_new_one():
    made = bodies.sets(2, 5)
    assert len(made) == 16
    assert len({r.subject for r in made}) == 16
    labels = {r.groups["source"]: [x.label for x in r.regions] for r in made}
    assert labels == {f"set{i}": [bodies.labelled(i)] for i in range(8)}
    assert bodies.NEW not in {x for v in labels.values() for x in v}
    assert all(r.first("volume").origin.by == "synthetic" for r in made)
