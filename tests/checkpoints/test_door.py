"""The command, and the table that it shows."""

import re
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from misbehaving import RESEARCH, content, entry, one, sha256, table

from debias_utils import checkpoints
from debias_utils.checkpoints import Hub, Web
from debias_utils.checkpoints.door import card, main

DATA = content(5_000)


def run(capsys, *arguments, registry):
    status = main(arguments, registry=registry)
    return status, *capsys.readouterr()


def test_list_show_fetch_verify(server, capsys):
    server.files["/model.bin"] = DATA
    registry = one(server.url, DATA, size=len(DATA))
    assert re.search(r"model +5 kB +free +- +A model", run(capsys, "list", registry=registry)[1])
    status, out, _ = run(capsys, "fetch", "model", "--quiet", registry=registry)
    assert (status, out.strip()) == (0, str(checkpoints.files("model", registry=registry)[0]))
    assert re.search(r"model +5 kB +free +here +A model", run(capsys, "list", registry=registry)[1])
    shown = run(capsys, "show", "model", registry=registry)[1]
    assert f"here: model.bin, 5 kB, SHA-256 {sha256(DATA)} (published), from {server.url}/model.bin" in shown
    assert run(capsys, "verify", "model", registry=registry)[:2] == (0, "model: whole, model.bin\n")
    status, out, _ = run(capsys, "verify", registry=registry)
    assert (status, out) == (0, "packaged models: whole\nmodel: whole, model.bin\n")
    checkpoints.files("model", registry=registry)[0].write_bytes(DATA[:-1])
    status, out, err = run(capsys, "verify", "model", registry=registry)
    assert (status, out) == (1, "")
    assert "altered or cut short" in err


def test_errors_are_a_line_and_a_status(server, capsys, tmp_path):
    server.files["/model.bin"] = DATA
    assert run(capsys, "fetch", "nobody", registry=one(server.url)) == (
        1,
        "",
        "error: unknown checkpoint 'nobody'; choose one of: 'model'\n",
    )
    assert run(capsys, "fetch", "model", "--offline", registry=one(server.url))[0] == 1
    registry = table(entry(Web("model.bin", (f"{server.url}/model.bin",)), licence=RESEARCH))
    status, _, err = run(capsys, "fetch", "model", "--quiet", registry=registry)
    assert (status, "Commercial use is forbidden." in err, server.asked) == (1, True, [])
    assert run(capsys, "fetch", "model", "--quiet", "--accept", "research", registry=registry)[0] == 0
    assert run(capsys, "show", "nobody", registry=registry)[0] == 1


def test_a_file_of_ones_own_and_a_mirror(server, capsys, tmp_path):
    (tmp_path / "mine.bin").write_bytes(DATA)
    registry = one("https://192.0.2.1", DATA)
    assert run(capsys, "fetch", "model", "--from", str(tmp_path / "mine.bin"), registry=registry)[0] == 0
    server.files["/copy/model/model.bin"] = DATA
    other = table(entry(Web("model.bin", sha256=sha256(DATA)), name="model"))
    assert run(capsys, "fetch", "model", "--quiet", "--renew", "--mirror", f"{server.url}/copy", registry=other)[0] == 0
    assert len(server.asked) == 1


def test_the_command_itself():
    ran = subprocess.run([sys.executable, "-m", "debias_utils.assets", "list"], capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in ran.stdout.splitlines()[1:-2]]
    assert names == list(checkpoints.REGISTRY)
    assert "stylegan2-ffhq" in names


@pytest.mark.parametrize("registered", checkpoints.REGISTRY.values(), ids=lambda each: each.name)
def test_the_table_says_what_is_known_and_what_is_not(registered):
    text = card(registered)
    assert registered.licence.terms in text
    assert ("must be accepted by name" in text) is not registered.licence.commercial
    assert registered.parts
    for part in registered.parts:
        if isinstance(part, Hub):
            assert part.repo in text
            continue
        for url in part.urls:
            assert urlsplit(url).scheme == "https"
        for digest in [part.sha256, *part.contents.values()]:
            assert digest[:8] in text
            assert len(digest) in (0, 8, 64)
        if not part.urls:
            assert "by hand" in text
            assert any("--from" in note for note in registered.notes)
    for digest in re.findall(r"[0-9a-f]{64}", " ".join(url for part in registered.parts for url in getattr(part, "urls", ()))):
        assert digest in text  # OpenAI's addresses carry their checksums


def test_checksums_agree_with_the_libraries_that_publish_them():
    import open_clip
    from torchvision.models import AlexNet_Weights, VGG16_Weights

    for entry_ in checkpoints.REGISTRY.values():
        if entry_.name.endswith("-openai"):
            url = open_clip.get_pretrained_url(entry_.settings["architecture"], "openai")
            assert url == entry_.parts[0].urls[0]
            assert entry_.parts[0].sha256 == url.split("/")[-2]
            assert open_clip.get_pretrained_cfg(entry_.settings["architecture"], "openai")["quick_gelu"] is True
    for name, weights in (("lpips-alex", AlexNet_Weights.IMAGENET1K_V1), ("lpips-vgg", VGG16_Weights.IMAGENET1K_V1)):
        backbone = checkpoints.REGISTRY[name].parts[0]
        assert backbone.urls == (weights.url,)
        assert weights.url.endswith(f"-{backbone.sha256}.pth")
        assert backbone.about == pytest.approx(weights.meta["_file_size"] * 2**20, abs=1)
    laion = open_clip.get_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k")
    entry_ = checkpoints.REGISTRY["clip-vit-b-32-laion2b"]
    assert laion["hf_hub"].rstrip("/") == entry_.parts[0].repo
    assert bool(laion.get("quick_gelu")) is entry_.settings["quick_gelu"]
