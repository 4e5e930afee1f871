"""Names, synonyms and places of objects."""

import pytest

from fabrica.curate.ontology import MEDICAL, Ontology, Thing, phrase
from fabrica.errors import UsageError


def test_an_object_is_found_by_any_of_its_names_and_a_typo_gets_the_near_one():
    assert MEDICAL.thing("Blood Vessel").name == "retinal vessel"
    assert MEDICAL.candidates("mr", "heart") == ("right ventricle", "myocardium", "left ventricle")
    with pytest.raises(UsageError, match="did you mean 'myocardium'"):
        MEDICAL.thing("myocardum")
    with pytest.raises(UsageError, match="did you mean 'mr/heart'"):
        MEDICAL.candidates("mr", "hearth")


@pytest.mark.parametrize("things", [(), (Thing("a", ()), Thing("A", ())), (Thing("a", (), ("b",)), Thing("b", ())),
                                    (Thing(" ", ()),)])  # fmt: skip
def test_names_are_there_and_unique(things):
    with pytest.raises(UsageError, match="names each object once"):
        Ontology(things)


def test_a_name_may_hold_the_signs_that_file_names_use():
    odd = Thing("left+right_lung in part.png", (("ct", "chest"),), ("a_b",))
    again = Ontology.from_json(Ontology((odd,)).to_json())
    assert again.things == (odd,)
    assert again.prompts("a_b", "ct", "chest") == (
        "left+right_lung in part.png in chest CT", "a_b in chest CT",
    )  # fmt: skip
    assert phrase("polyp", "endoscopy", "colon") == "polyp in colon endoscopy"
