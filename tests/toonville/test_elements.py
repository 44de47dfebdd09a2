import numpy as np
import pandas as pd

from debias_utils import toonville
from debias_utils.toonville.elements import ELEMENTS, GROUPS, element_names, to_elements


def test_an_element_is_on_exactly_where_the_table_says_so():
    people = toonville.sample(300, everyday=0.3, seed=1)
    on = to_elements(people)
    assert on.shape == (300, len(ELEMENTS)) == (300, len(element_names()))
    dark = element_names().index("skin: dark")
    assert np.array_equal(on[:, dark] == 1, people["skin"] == "dark")
    assert np.array_equal(on[:, GROUPS["glasses"][0]] == 1, people["glasses"])
    for column in ("skin", "hair", "eyes", "clothing", "tool"):
        assert on[:, GROUPS[column]].sum(axis=1).max() == 1


def test_what_is_covered_counts_only_on_demand():
    people = toonville.sample(300, everyday=0.3, seed=1)
    bare, full = to_elements(people), to_elements(people, covered=True)
    assert (bare <= full).all()
    dressed = people["clothing"].ne("").to_numpy()
    assert not bare[dressed][:, GROUPS["everyday_clothes"]].any()
    assert (full[:, GROUPS["everyday_clothes"]].sum(axis=1) == 1).all()


def test_people_who_look_alike_have_the_same_elements_and_others_do_not():
    people = toonville.sample(200, everyday=0.3, seed=2)
    pixels = np.unique(toonville.render(people).reshape(len(people), -1), axis=0, return_inverse=True)[1]  # one number a picture
    on = to_elements(people)
    twin = pd.concat([people.head(1), people.head(1).assign(everyday_color="#ec4899", clothing="nurse")])
    assert np.array_equal(*to_elements(twin.assign(everyday_color=["#ec4899", "#151613"], clothing="nurse")))
    same_elements = (on[:, None] == on[None]).all(axis=2)
    same_pixels = pixels[:, None] == pixels[None]
    assert (same_pixels | ~same_elements).all()  # equal elements give equal pictures
