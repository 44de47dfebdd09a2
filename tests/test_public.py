"""Models by their names in the registry; the files are ours, in the official formats, given as stand-ins."""

import numpy as np
import pytest
import torch
from official_files import write_official

from debias_utils import public
from debias_utils.checkpoints import DownloadError, LicenceNotAcceptedError, WrongContentError


def test_a_generator_by_its_name(fixtures, tmp_path):
    state = {name: torch.from_numpy(value) for name, value in np.load(fixtures / "stylegan2" / "generator.npz").items()}
    write_official(state, tmp_path / "mine.pkl")
    with pytest.raises(LicenceNotAcceptedError, match="NVIDIA-NC"):
        public.load_generator(source=tmp_path / "mine.pkl")
    generator = public.load_generator(source=tmp_path / "mine.pkl", accepted=["NVIDIA-NC"])
    assert all(torch.equal(value, state[name]) for name, value in generator.state_dict().items())
    again = public.load_generator(offline=True)  # from the cache, the licence is accepted
    assert torch.equal(again.mapping.w_avg, generator.mapping.w_avg)


def test_other_files_do_not_stand_in_where_a_checksum_is_published(tmp_path):
    (tmp_path / "RN50.pt").write_bytes(b"not OpenAI's")
    with pytest.raises(WrongContentError, match=r"RN50\.pt from file .*published is afeb0e10f9e5"):
        public.load_clip("clip-rn50-openai", source=tmp_path / "RN50.pt")


def test_unknown_names_list_the_choices():
    with pytest.raises(ValueError, match=r"unknown clip checkpoint 'RN50'; choose one of: 'clip-rn50-openai'"):
        public.load_clip("RN50")
    with pytest.raises(ValueError, match=r"unknown arcface checkpoint .*: 'arcface-antelopev2', 'arcface-buffalo-l'"):
        public.load_arcface("dlib-faces")
    with pytest.raises(ValueError, match=r"unknown lpips checkpoint"):
        public.load_perceptual("alex")


def test_offline_nothing_is_loaded_from_elsewhere():
    for load in (public.load_editor, public.load_fairface):
        with pytest.raises(DownloadError, match=r"fetching is off \(offline\)"):
            load(offline=True)
