"""Archives, installed packages, files at hand, and the hub, imitated on a loopback address."""

import hashlib
import io
import json
import tarfile
import zipfile
from functools import partial

import pytest
from misbehaving import content, entry, one, sha256, table

from debias_utils import checkpoints
from debias_utils.checkpoints import DownloadError, Hub, Web, WrongContentError
from debias_utils.checkpoints.place import noted, root

A, B = content(200_000, 1), content(100_000, 2)
get = partial(checkpoints.fetch, "model", progress=False, pause=0.01, timeout=0.5)


def zipped(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return packed.getvalue()


def tarred(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return packed.getvalue()


FILES = {"pack-1.0/models/a.onnx": A, "pack-1.0/models/b.onnx": B, "pack-1.0/setup.py": b"raise SystemExit('run')"}
MEMBERS = {"models/a.onnx": "", "models/b.onnx": ""}


def archived(server, name, packed, *, known=True, members=MEMBERS, **options):
    server.files[f"/{name}"] = packed
    web = Web(name, (f"{server.url}/{name}",), sha256=sha256(packed) if known else "", members=members, **options)
    return table(entry(web))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("name", "pack"), [("m.zip", zipped), ("m.whl", zipped), ("m.tar.gz", tarred)])
def test_members_are_taken_out_of_archives(server, name, pack, known):
    registry = archived(server, name, pack(FILES), known=known)
    folder = get(registry=registry)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"} == {"a.onnx": A, "b.onnx": B}
    assert sorted(path.name for path in checkpoints.files("model", registry=registry)) == ["a.onnx", "b.onnx"]
    assert get(registry=registry) == folder
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "packed",
    [
        zipped({"models/a.onnx": A}),
        zipped({"models/a.onnx": A, "models/b.onnx": B, "other/models/b.onnx": B}),
        zipped(FILES)[:-50],
        b"not a zip",
        b"",
    ],
)
def test_archives_that_are_none_or_lack_members_are_refused_and_not_trusted(server, packed):
    with pytest.raises(
        WrongContentError, match=r"m.zip (holds \d files 'models/b.onnx', expected one|cannot be read as an archive)"
    ):
        get(registry=archived(server, "m.zip", packed, known=False))
    assert checkpoints.files("model", registry=archived(server, "m.zip", packed)) == []
    assert "m.zip" not in (root() / "trusted" / "model.json").read_text()
    assert get(registry=archived(server, "m.zip", zipped(FILES), known=False)).is_dir()


def test_links_and_paths_out_of_an_archive_lead_nowhere(server, tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        link = tarfile.TarInfo("models/a.onnx")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    with pytest.raises(WrongContentError, match=r"holds 0 files 'models/a\.onnx'"):
        get(registry=archived(server, "m.tar.gz", packed.getvalue()))
    registry = archived(server, "m.zip", zipped({"../../../models/a.onnx": A, "models/../../b.onnx": B}), members={"b.onnx": ""})
    assert get(registry=registry) == root() / "model" / "b.onnx"
    assert not list(tmp_path.rglob("a.onnx"))


def test_members_of_a_trusted_archive_are_compared_too(server):
    registry = archived(server, "m.zip", zipped(FILES), known=False, members={"models/a.onnx": sha256(B)})
    with pytest.raises(WrongContentError, match=r"a\.onnx from .* is not used"):
        get(registry=registry)
    assert checkpoints.files("model", registry=registry) == []


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that would fail if it were imported."""
    folder = tmp_path / "site" / "some_pack"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('was imported')")
    (folder / "models" / "a.onnx").write_bytes(A)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


def test_an_installed_package_needs_no_download(server, package):
    registry = archived(server, "m.whl", zipped({"some_pack/models/a.onnx": A}), members={"some_pack/models/a.onnx": sha256(A)})
    web = registry["model"].parts[0]
    registry = table(entry(Web(web.file, web.urls, web.sha256, members=web.members, package="some_pack")))
    assert get(registry=registry, offline=True).read_bytes() == A
    assert noted(registry["model"])["files"]["a.onnx"]["from"] == "package some_pack"
    (package / "models" / "a.onnx").write_bytes(B)  # another version of the package
    get(registry=registry).unlink()
    assert get(registry=registry).read_bytes() == A
    assert [asked.path for asked in server.asked] == ["/m.whl"]


def test_a_local_file_stands_in_for_any_entry(server, tmp_path, monkeypatch):
    (tmp_path / "mine.bin").write_bytes(A)
    assert get(registry=one("https://192.0.2.1", A), source=tmp_path / "mine.bin").read_bytes() == A
    with pytest.raises(WrongContentError, match=r"model.bin from file .*mine.bin has 200000 bytes .* is not used"):
        get(registry=one("https://192.0.2.1", B), source=tmp_path / "mine.bin")
    with pytest.raises(DownloadError, match=r"there is no file .*gone\.bin to stand in for model"):
        get(registry=one("https://192.0.2.1"), source=str(tmp_path / "gone.bin"))
    (tmp_path / "local" / "other").mkdir(parents=True)
    (tmp_path / "local" / "other" / "model.bin").write_bytes(B)
    monkeypatch.setenv("DEBIAS_UTILS_LOCAL", str(tmp_path / "local"))
    registry = table(entry(Web("model.bin"), name="other"))
    assert checkpoints.fetch("other", registry=registry, offline=True).read_bytes() == B
    assert (tmp_path / "local" / "other" / "model.bin").exists()


def test_an_entry_without_an_address_says_where_to_look():
    with pytest.raises(DownloadError, match=r"No program can fetch it: see https://example.org/model.*--from FILE"):
        get(registry=table(entry(Web("model.bin"))))


@pytest.mark.parametrize("form", ["archive", "folder with the archive", "folder with the members"])
def test_local_archives_and_folders(server, tmp_path, form):
    registry = archived(server, "m.zip", zipped(FILES))
    mine = tmp_path / "mine"
    mine.mkdir()
    if form == "folder with the members":
        (mine / "a.onnx").write_bytes(A)
        (mine / "b.onnx").write_bytes(B)
    else:
        (mine / "m.zip").write_bytes(server.files["/m.zip"])
    assert get(registry=registry, source=mine / "m.zip" if form == "archive" else mine, offline=True).is_dir()
    assert len(checkpoints.files("model", registry=registry)) == 2
    assert server.asked == []


def test_several_files_need_a_folder(server, tmp_path):
    registry = table(entry(Web("a.bin"), Web("b.bin")))
    (tmp_path / "a.bin").write_bytes(A)
    with pytest.raises(DownloadError, match=r"model has several files: give the folder that holds a\.bin"):
        get(registry=registry, source=tmp_path / "a.bin")
    with pytest.raises(DownloadError, match=r"there is no file .*b\.bin"):
        get(registry=registry, source=tmp_path)
    (tmp_path / "b.bin").write_bytes(B)
    assert {path.name for path in get(registry=registry, source=tmp_path).iterdir()} == {"a.bin", "b.bin", "verified.json"}


# the hub


COMMIT, LATER = "a" * 40, "b" * 40
REPO = {
    "unet/model.safetensors": A,
    "unet/config.json": b"{}",
    "tokenizer/vocab.json": b'{"a": 1}',
    "tokenizer/merges.txt": b"a b",
    "x.ckpt": B,
}
PATTERNS = ("unet/model.safetensors", "unet/config.json", "tokenizer/*")


@pytest.fixture
def hub(server, monkeypatch):
    """A repository of the hub at `server.url`; `publish(commit, files)` adds a commit, the last one is "main"."""
    import huggingface_hub.constants

    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)

    def publish(commit, files):
        siblings = []
        for path, data in files.items():
            blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            lfs = {"sha256": sha256(data), "size": len(data), "pointerSize": 130} if len(data) > 1000 else None
            siblings.append({"rfilename": path, "size": len(data), "blobId": blob, "lfs": lfs})
            server.files[f"/owner/name/resolve/{commit}/{path}"] = data
            server.special[f"/owner/name/resolve/{commit}/{path}"] = {
                "X-Repo-Commit": commit, "X-Linked-Etag": f'"{lfs["sha256"] if lfs else blob}"', "X-Linked-Size": str(len(data)),
            }  # fmt: skip
        info = json.dumps({"id": "owner/name", "sha": commit, "siblings": siblings, "private": False, "downloads": 0, "tags": []})
        for name in ("main", commit):
            server.files[f"/api/models/owner/name/revision/{name}"] = info.encode()
            server.special[f"/api/models/owner/name/revision/{name}"] = {"Content-Type": "application/json"}

    publish(COMMIT, REPO)
    return publish


def from_hub(**options):
    return table(entry(Hub("owner/name", PATTERNS), **options))


def test_files_of_the_hub(server, hub, capsys):
    folder = get(registry=from_hub())
    wanted = {path: data for path, data in REPO.items() if path != "x.ckpt"}
    assert {path: (folder / path).read_bytes() for path in wanted} == wanted
    assert {path.relative_to(folder).as_posix() for path in checkpoints.files("model", registry=from_hub())} == set(wanted)
    assert not (folder / "x.ckpt").exists()
    assert not list(folder.glob("*.part"))
    assert "its SHA-256 is known from the hub's list alone; trusted on first use" in capsys.readouterr().err
    before = len(server.asked)
    assert get(registry=from_hub(), offline=True) == folder
    assert len(server.asked) == before


def test_a_commit_that_was_used_stays(server, hub):
    folder = get(registry=from_hub())
    (folder / "unet" / "model.safetensors").write_bytes(B)
    hub(LATER, {**REPO, "unet/model.safetensors": content(200_000, 9)})
    assert (get(registry=from_hub()) / "unet" / "model.safetensors").read_bytes() == A
    assert (get(registry=from_hub(), renew=True) / "unet" / "model.safetensors").read_bytes() == content(200_000, 9)


@pytest.mark.parametrize("path", ["unet/model.safetensors", "tokenizer/vocab.json"])
def test_what_is_not_what_the_hub_lists_is_not_used(server, hub, path):
    """Of the same length, so that only the hash can tell."""
    server.files[f"/owner/name/resolve/{COMMIT}/{path}"] = other = bytes(len(REPO[path]))
    with pytest.raises(WrongContentError, match=rf"{path} of owner/name has .*, the hub lists"):
        get(registry=from_hub())
    assert not any(file.read_bytes() == other for file in (root() / "model").rglob("*") if file.is_file())
    assert checkpoints.files("model", registry=from_hub()) == []
    server.files[f"/owner/name/resolve/{COMMIT}/{path}"] = REPO[path]
    assert (get(registry=from_hub()) / path).read_bytes() == REPO[path]


def test_a_broken_download_of_the_hub_goes_on(server, hub, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 50_000)  # what it may lose: 10 MB otherwise
    path = f"/owner/name/resolve/{COMMIT}/unet/model.safetensors"
    server.plan[path] = ["ok", ("cut", 150_000)]  # the first asks for the head alone
    get(registry=from_hub())
    assert [asked.start for asked in server.asked if asked.path == path and asked.sent] == [0, 150_000]


def test_a_hub_that_lacks_something_says_what(server, hub):
    hub(COMMIT, {path: data for path, data in REPO.items() if not path.startswith("tokenizer")})
    with pytest.raises(DownloadError, match=r"owner/name has no tokenizer/\* at main on the hub"):
        get(registry=from_hub())
    with pytest.raises(DownloadError, match="the hub gives no list of owner/other"):
        get(registry=table(entry(Hub("owner/other", ("a",)))))
    with pytest.raises(DownloadError, match=r"owner/name of model is not here and fetching is off \(offline\)"):
        get(registry=from_hub(), offline=True)


def test_a_folder_stands_in_for_the_hub(tmp_path):
    for path, data in REPO.items():
        (tmp_path / "mine" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / path).write_bytes(data)
    folder = get(registry=from_hub(), source=tmp_path / "mine")
    assert len(checkpoints.files("model", registry=from_hub())) == 4
    assert not (folder / "x.ckpt").exists()
    with pytest.raises(DownloadError, match=r"there is no file .*unet/model\.safetensors"):
        get(registry=table(entry(Hub("owner/name", PATTERNS), name="model")), source=tmp_path / "mine" / "tokenizer")
