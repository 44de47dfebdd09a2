"""Fetching from a server that misbehaves on purpose: nothing wrong is ever used, nothing is fetched twice."""

import errno
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from misbehaving import RESEARCH, Server, content, entry, one, sha256, table

from debias_utils import assets, checkpoints
from debias_utils.checkpoints import DownloadError, LicenceNotAcceptedError, Web, WrongContentError
from debias_utils.checkpoints.place import root

DATA = content(1_000_000)
MIB = 2**20
get = partial(checkpoints.fetch, "model", progress=False, pause=0.01, timeout=0.5)
SAID = "trusted on first use"


def starts(server):
    return [asked.start for asked in server.asked]


def parts():
    """All unfinished files, and all files under their own names."""
    every = {path for path in root().rglob("*") if path.is_file() and path.suffix not in (".lock", ".json")}
    return {path.name for path in every if ".part" in str(path)}, {path.name for path in every if ".part" not in str(path)}


@pytest.fixture(params=["known", "unknown"])
def registry(request, server):
    server.files["/model.bin"] = DATA
    return one(server.url, DATA if request.param == "known" else None)


def test_a_file_is_fetched_once_and_then_found(server, registry, capsys):
    path = get(registry=registry)
    assert path.read_bytes() == DATA
    assert get(registry=registry) == path
    assert starts(server) == [0]
    assert checkpoints.files("model", registry=registry) == [path]
    assert parts() == (set(), {"model.bin"})
    known = bool(registry["model"].parts[0].sha256)
    assert (SAID in capsys.readouterr().err) is not known  # where nothing is published, that is said, and written down
    assert (root() / "trusted" / "model.json").is_file() is not known


@pytest.mark.parametrize(
    "plan",
    [
        [("cut", 300_000)],
        [("cut", 0), ("cut", 1), ("cut", 70_000), ("cut", 100_000)],
        [("stall", 300_000)],
        [("trickle", 300_000)],
        [("chunked cut", 200_000)],
        [("status", 429, {"Retry-After": "0.05"}), ("status", 429), ("status", 503)],
        [("cut", 300_000), ("status", 429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), ("status", 500)],
        ["chunked"],
        [("cut", 300_000), "whole"],
        [("cut", 300_000), "shifted"],
        [("cut", 300_000), ("redirect", "/model.bin")],
        [("redirect", "model.bin")],
    ],
)
def test_what_can_be_mended_is_mended(server, registry, plan):
    server.plan["/model.bin"] = list(plan)
    assert get(registry=registry).read_bytes() == DATA
    assert server.plan["/model.bin"] == []


def test_a_broken_download_goes_on_where_it_stopped(server, registry):
    server.plan["/model.bin"] = [("cut", 300_000), ("cut", 200_000)]
    assert get(registry=registry).read_bytes() == DATA
    assert starts(server) == [0, 300_000, 500_000]


@pytest.mark.parametrize("plan", [[("swap", content(1_000_000, 1))], [("blind",)], [("swap", content(900_000, 1))]])
def test_a_file_that_changed_in_between_is_not_mixed(server, registry, plan):
    """Bytes of two versions are never one file, whatever the server says of ranges and versions."""
    server.plan["/model.bin"] = [("cut", 300_000), *plan]
    if plan[0] == ("blind",):
        server.plan["/model.bin"][0] = ("cut", 300_000)
        get_once(server, registry)
        server.files["/model.bin"] = content(1_000_000, 2)
    try:
        found = get(registry=registry).read_bytes()
    except WrongContentError:
        assert registry["model"].parts[0].sha256
        assert parts() == (set(), set())
    else:
        assert not registry["model"].parts[0].sha256
        assert found == server.files["/model.bin"]  # whole, of one version


def get_once(server, registry):
    """Leave an unfinished file of 300,000 bytes behind."""
    server.plan["/model.bin"] = [("cut", 300_000), *[("status", 500)] * 5]
    with pytest.raises(DownloadError, match="cannot be fetched: answer 500"):
        get(registry=registry)
    server.plan["/model.bin"] = ["blind"]


@pytest.mark.parametrize("damage", ["flip", "longer", "shorter"])
def test_a_corrupted_file_is_never_used(server, damage):
    server.files["/model.bin"] = DATA
    server.plan["/model.bin"] = [damage] * 9 if damage != "longer" else []
    if damage == "longer":
        server.files["/model.bin"] = DATA + b"more"
    with pytest.raises(WrongContentError, match=r"model.bin from http://127.*published is .*is not used"):
        get(registry=one(server.url, DATA))
    assert parts() == (set(), set())
    server.plan["/model.bin"], server.files["/model.bin"] = [], DATA
    assert get(registry=one(server.url, DATA)).read_bytes() == DATA


def test_a_part_that_was_damaged_on_the_disk_is_fetched_again(server):
    server.files["/model.bin"] = DATA
    registry = one(server.url, DATA)
    get_once(server, registry)
    server.plan["/model.bin"] = []
    (part,) = root().glob("model/*.part")
    part.write_bytes(b"\0" * 300_000)
    assert get(registry=registry).read_bytes() == DATA
    assert starts(server)[-2:] == [300_000, 0]


def test_a_part_of_a_file_of_unknown_checksum_without_a_version_is_not_continued(server):
    server.files["/model.bin"], server.marks = DATA, False
    registry = one(server.url)
    server.plan["/model.bin"] = [("cut", 300_000)]
    assert get(registry=registry).read_bytes() == DATA
    assert starts(server) == [0, 0]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (["page"], "answers with a page, not with the file"),
        (["gzip"], "in another coding than asked for"),
        (["endless"], "does not say where the file ends"),
        ([("status", 404)], "answers 404"),
        ([("status", 403)], "answers 403"),
        ([("status", 401)], "answers 401"),
        ([("status", 500)] * 5, "cannot be fetched: answer 500"),
        ([("status", 429, {"Retry-After": "3600"})], "asks to wait 3600 seconds"),
        ([("cut", 0)] * 5, "cannot be fetched"),
        ([("stall", 0)] * 5, "cannot be fetched"),
        ([("redirect", "/model.bin")] * 99, "leads in circles"),
        ([("redirect", "file:///etc/passwd")], "not the web"),
        ([("redirect", "/gone")], "answers 404"),
    ],
)
def test_a_source_that_is_of_no_use_is_named(server, plan, message):
    server.files["/model.bin"], server.plan["/model.bin"] = DATA, list(plan)
    with pytest.raises(DownloadError, match=message) as error:
        get(registry=one(server.url))
    assert server.url in str(error.value)
    assert parts()[1] == set()
    assert not (root() / "trusted" / "model.json").exists()


def test_nobody_answers():
    with Server() as gone:
        url = gone.url
    with pytest.raises(DownloadError, match="cannot be fetched"):
        get(registry=one(url))


def test_a_known_size_is_not_exceeded(server):
    server.files["/model.bin"] = DATA
    with pytest.raises(DownloadError, match="has 1000000 bytes, expected 999999"):
        get(registry=one(server.url, DATA, size=999_999))
    server.plan["/model.bin"] = ["chunked"]
    with pytest.raises(DownloadError, match="sends more than the 999999 bytes"):
        get(registry=one(server.url, DATA, size=999_999))
    assert parts() == (set(), set())
    assert get(registry=one(server.url, DATA, size=1_000_000)).read_bytes() == DATA


def test_mirrors_are_asked_in_order(server, monkeypatch):
    server.files |= {"/copy/model/model.bin": DATA, "/bad/model/model.bin": content(1_000_000, 3)}
    registry = one(server.url, DATA)  # the owner's own address answers 404
    monkeypatch.setenv("DEBIAS_UTILS_MIRRORS", f"{server.url}/bad {server.url}/copy/")
    assert get(registry=registry).read_bytes() == DATA
    assert [asked.path for asked in server.asked] == ["/model.bin", "/bad/model/model.bin", "/copy/model/model.bin"]
    with pytest.raises(WrongContentError, match=r"answers 404.*published is"):
        get(registry=registry, renew=True, mirrors=[f"{server.url}/bad"])
    assert get(registry=registry, offline=True).read_bytes() == DATA  # what was there stays


def test_what_was_continued_from_one_mirror_is_completed_by_another(server):
    server.files |= {"/model.bin": DATA, "/copy/model/model.bin": DATA}
    server.plan["/model.bin"] = [("cut", 400_000), *[("status", 500)] * 5]
    assert get(registry=one(server.url, DATA), mirrors=[f"{server.url}/copy"]).read_bytes() == DATA
    assert starts(server)[-1] == 400_000


def test_plain_http_from_elsewhere_needs_a_checksum(monkeypatch):
    with pytest.raises(DownloadError, match="neither encrypted nor is its checksum known"):
        get(registry=one("http://192.0.2.1"))


def test_a_file_that_was_trusted_must_stay_the_same(server, capsys):
    server.files["/model.bin"] = DATA
    registry = one(server.url)
    get(registry=registry).unlink()
    server.files["/model.bin"] = other = content(1_000_000, 4)
    with pytest.raises(WrongContentError, match=r"trusted since 20\d\d-.*it is not used.*--renew"):
        get(registry=registry)
    assert parts() == (set(), set())
    assert get(registry=registry, renew=True).read_bytes() == other
    assert json.loads((root() / "trusted" / "model.json").read_text())["model.bin"]["sha256"] == sha256(other)


def test_published_first_digits_are_compared_and_the_rest_is_trusted(server, capsys):
    server.files["/model.bin"] = DATA
    registry = table(entry(Web("model.bin", (f"{server.url}/model.bin",), sha256=sha256(DATA)[:8])))
    assert get(registry=registry).read_bytes() == DATA
    assert f"only {sha256(DATA)[:8]} is published; trusted on first use" in capsys.readouterr().err
    wrong = table(entry(Web("model.bin", (f"{server.url}/model.bin",), sha256="00000000"), name="wrong"))
    with pytest.raises(WrongContentError, match="published is 00000000"):
        checkpoints.fetch("wrong", registry=wrong, progress=False)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def alter(path):
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)


def swap(path):
    other = path.with_name("other")
    other.write_bytes(content(1_000_000, 5))
    shutil.copystat(path, other)  # of the same length and time
    other.replace(path)


@pytest.mark.parametrize("damage", [cut_short, alter, swap, Path.unlink])
def test_a_file_that_was_damaged_in_the_cache_is_fetched_again(server, registry, damage):
    damage(get(registry=registry))
    assert checkpoints.files("model", registry=registry) == []
    with pytest.raises(DownloadError, match=r"model\.bin of model is not here and fetching is off"):
        get(registry=registry, offline=True)
    assert get(registry=registry).read_bytes() == DATA
    assert len(server.asked) == 2


def test_verify_hashes_again(server, registry, monkeypatch):
    path = get(registry=registry)
    assert checkpoints.verify("model", registry=registry) == [path]
    notes = json.loads((path.parent / "verified.json").read_text())
    alter(path)
    stat = path.stat()
    notes["files"]["model.bin"] |= {"modified": stat.st_mtime_ns, "changed": stat.st_ctime_ns}  # as a worn disk would: unseen
    (path.parent / "verified.json").write_text(json.dumps(notes))
    assert checkpoints.files("model", registry=registry) == [path]
    with pytest.raises(WrongContentError, match=r"model.bin is not what was fetched: it was altered or cut short"):
        checkpoints.verify("model", registry=registry)
    assert checkpoints.files("model", registry=registry) == []
    with pytest.raises(FileNotFoundError, match="model is not here, or only in part"):
        checkpoints.verify("model", registry=registry)


def test_a_registry_that_learns_another_checksum_does_not_use_the_old_file(server):
    server.files["/model.bin"] = DATA
    get(registry=one(server.url, DATA))
    other = content(1_000_000, 6)
    server.files["/model.bin"] = other
    assert get(registry=one(server.url, other)).read_bytes() == other


@pytest.mark.parametrize("variable", ["DEBIAS_UTILS_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(server, registry, variable, monkeypatch):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(DownloadError, match=r"fetching is off \(offline\).*--from FILE"):
        get(registry=registry)
    assert server.asked == []
    assert get(registry=registry, offline=False).read_bytes() == DATA
    assert get(registry=registry).read_bytes() == DATA


def test_the_proxy_of_the_environment_is_used(server, monkeypatch):
    server.files["/model.bin"] = DATA
    proxied = one("http://192.0.2.1", DATA)  # nobody is there: the request goes to the proxy, with the whole address
    server.files["http://192.0.2.1/model.bin"] = DATA
    monkeypatch.setenv("http_proxy", server.url)
    assert get(registry=proxied).read_bytes() == DATA
    assert [asked.path for asked in server.asked] == ["http://192.0.2.1/model.bin"]


def test_a_licence_is_shown_and_accepted_by_name(server, monkeypatch):
    server.files["/model.bin"] = DATA
    part = Web("model.bin", (f"{server.url}/model.bin",), sha256=sha256(DATA))
    registry = table(entry(part, licence=RESEARCH), entry(part, name="second", licence=RESEARCH))
    for wrong in ((), ("free",), ("Research",)):
        with pytest.raises(LicenceNotAcceptedError, match=r"under research: Commercial use is forbidden.*--accept research"):
            get(registry=registry, accepted=wrong)
    assert server.asked == []
    monkeypatch.setenv("DEBIAS_UTILS_ACCEPT", "other, research")
    get(registry=registry)
    monkeypatch.delenv("DEBIAS_UTILS_ACCEPT")
    with pytest.raises(LicenceNotAcceptedError):  # nothing was noted: a file that is here is still under its licence
        get(registry=registry)
    get(registry=registry, accepted=["research"])
    checkpoints.fetch("second", registry=registry, progress=False)
    with pytest.raises(ValueError, match="unknown licence 'nonsense'; choose one of: 'research'"):
        checkpoints.accept("nonsense", registry=registry)


def test_unknown_names_list_the_choices():
    with pytest.raises(ValueError, match="unknown checkpoint 'clip'; choose one of: 'clip-rn50-openai'"):
        checkpoints.fetch("clip")


def test_no_room_is_found_out_before_anything_is_fetched(server, registry, monkeypatch):
    free = shutil.disk_usage(root().parent.parent)._replace(free=999_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(
        OSError, match=r"1 MB are to be fetched and 1e\+03 kB are free; make room, or set DEBIAS_UTILS_CACHE"
    ) as error:
        get(registry=registry)
    assert error.value.errno == errno.ENOSPC
    assert not isinstance(error.value, DownloadError)
    assert parts() == (set(), set())


LIMITED = """
import resource, signal, sys
from misbehaving import one
from debias_utils import checkpoints
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
checkpoints.fetch("model", progress=False, pause=0.01, registry=one(sys.argv[1]))
"""


def test_a_disk_that_fills_up_is_named_and_the_rest_fetched_later(server):
    server.files["/model.bin"] = DATA
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, server.url, "400000"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cannot write to the cache folder (File too large)" in ran.stderr
    assert get(registry=one(server.url)).read_bytes() == DATA
    assert starts(server) == [0, 400_000]


def test_a_cache_that_cannot_be_written_is_found_out_first(server, registry):
    root().parent.mkdir(parents=True)
    root().write_text("in the way")
    with pytest.raises(OSError, match="cannot write to the cache folder"):
        get(registry=registry)
    assert server.asked == []


def test_sha256_of_a_file_of_several_pieces(tmp_path):
    data = content(3 * MIB + 5)
    (tmp_path / "a").write_bytes(data)
    assert assets.sha256_of(tmp_path / "a") == sha256(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sha256": "XYZ"}, "no SHA-256"), ({"sha256": "12345"}, "no SHA-256"), ({"members": {"a": ""}}, "has members")],
)
def test_entries_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        Web("model.bin", ("https://example.org",), **options)
