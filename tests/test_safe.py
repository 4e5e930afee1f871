"""The door for hostile bytes: archives, XML, checkpoints, URLs, inflate, whole-or-absent writes."""

import errno
import gzip
import io
import os
import pickle
import resource
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica import safe
from fabrica.errors import Full, Refused, UsageError
from fabrica.safe import LIMITS

KIB = 1024


def code_of(call, *args, **kw):
    with pytest.raises(Refused) as error:
        call(*args, **kw)
    return error.value.code


def make_zip(path, *entries, compress=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compress) as archive:
        for info, data in entries:
            archive.writestr(info, data)
    return path


def make_tar(path, *entries, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for info, data in entries:
            info = info if isinstance(info, tarfile.TarInfo) else tarfile.TarInfo(info)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


# ---------------------------------------------------------------- bytes


@given(st.binary(max_size=4096), st.sampled_from(["gzip", "zlib", "raw"]))
@settings(max_examples=60, deadline=None)
def test_inflate_undoes_deflate(data, form):
    engine = zlib.compressobj(wbits={"gzip": 31, "zlib": 15, "raw": -15}[form])
    packed = engine.compress(data) + engine.flush()
    assert safe.inflate(packed, raw=form == "raw") == data
    assert safe.inflate(io.BytesIO(packed), raw=form == "raw", at_most=7) == data[:7]


def test_inflate_reads_joined_gzip_members_and_ignores_padding_behind():
    assert safe.inflate(gzip.compress(b"a" * 9) + gzip.compress(b"b") + b"\0" * 64) == b"a" * 9 + b"b"


def test_inflate_refuses_bombs_cuts_and_noise_by_code():
    bomb = zlib.compress(bytes(64 << 20), 9)
    started = time.perf_counter()
    assert code_of(safe.inflate, bomb) == "ratio"
    assert time.perf_counter() - started < 1
    assert code_of(safe.inflate, zlib.compress(os.urandom(4 << 20)), limits=replace(LIMITS, array_bytes=1 << 20)) == (
        "array_too_large"
    )
    assert code_of(safe.inflate, gzip.compress(os.urandom(9999))[:-600]) == "deflate"
    assert code_of(safe.inflate, b"\x1f\x8b" + os.urandom(100)) == "deflate"


def test_check_array_counts_bytes_and_refuses_before_allocating():
    assert safe.check_array((2, 3), "float32", what="x") == 24
    assert code_of(safe.check_array, (60_000, 60_000), "uint16", what="x") == "array_too_large"
    assert code_of(safe.check_array, (2**40, 2**40, 2**40), "uint8", what="x") == "array_too_large"
    assert code_of(safe.check_array, (-1, 5), "uint8", what="x") == "array_shape"
    assert safe.check_array((LIMITS.array_bytes,), "uint8", what="x") == LIMITS.array_bytes


def test_open_file_refuses_pipes_and_folders_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert code_of(safe.read_bytes, tmp_path / "pipe") == "not_a_file"
    assert code_of(safe.read_bytes, tmp_path) == "not_a_file"
    (tmp_path / "a").write_bytes(b"12345")
    assert code_of(safe.read_bytes, tmp_path / "a", replace(LIMITS, file_bytes=4)) == "file_too_large"


def test_sha256_of_bytes_and_file_is_the_published_value(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert safe.sha256(b"abc") == safe.sha256(tmp_path / "a") == want


# ---------------------------------------------------------------- archives


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_archives_of_each_kind_give_their_files(tmp_path, kind):
    data = {"a/b.txt": b"one", "c.bin": os.urandom(70_000)}
    path = tmp_path / "x"
    (make_zip(path, *data.items()) if kind == "zip" else make_tar(path, *data.items(), mode=kind))
    assert {name: reader.read() for name, reader in safe.members(path)} == data
    names = safe.unpack(path, tmp_path / "out", only=lambda name: name.endswith(".txt"))
    assert names == ["a/b.txt"]
    assert (tmp_path / "out/a/b.txt").read_bytes() == b"one"
    assert not (tmp_path / "out/c.bin").exists()


EVIL = ["../up", "a/../../up", "/abs", "~/home", "a\\..\\b", "C:evil", "nul\nline", "x" * 300]


@pytest.mark.parametrize("name", EVIL)
def test_names_that_lead_out_are_refused_and_nothing_is_written(tmp_path, name):
    zipped = make_zip(tmp_path / "z", ("good", b"1"), (zipfile.ZipInfo(name), b"2"))
    tarred = make_tar(tmp_path / "t", ("good", b"1"), (name, b"2"))
    for path in (zipped, tarred):
        assert code_of(safe.unpack, path, tmp_path / "out/deep") == "archive_path"
    assert not (tmp_path / "out/deep").exists()
    assert not (tmp_path / "out/up").exists()
    assert not list((tmp_path / "out").iterdir())


def test_links_devices_and_sparse_files_are_refused(tmp_path):
    link = zipfile.ZipInfo("l")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert code_of(list, safe.members(make_zip(tmp_path / "z", (link, b"/etc/passwd")))) == "archive_link"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo("l")
        info.type, info.linkname = kind, "/etc/passwd"
        assert code_of(list, safe.members(make_tar(tmp_path / "t", (info, b"")))) == "archive_link"


@pytest.mark.parametrize("kind", ["zip", "w:gz", "w:xz"])
def test_a_200_to_1_ratio_is_refused_fast(tmp_path, kind):
    data = bytes(48 << 20)
    path = tmp_path / "x"
    (make_zip(path, ("zeros", data)) if kind == "zip" else make_tar(path, ("zeros", data), mode=kind))
    started = time.perf_counter()
    assert code_of(safe.unpack, path, tmp_path / "out") == "ratio"
    assert time.perf_counter() - started < 2
    assert not (tmp_path / "out").exists()


def test_a_zip_that_lies_about_sizes_or_overlaps_is_refused(tmp_path):
    path = make_zip(tmp_path / "x", ("zeros", bytes(8 << 20)))
    raw = bytearray(path.read_bytes())
    true = (8 << 20).to_bytes(4, "little")
    for at in (raw.find(true), raw.rfind(true)):
        raw[at : at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(raw)
    assert code_of(safe.unpack, path, tmp_path / "out") in ("archive_bad", "ratio")
    twice = make_zip(tmp_path / "y", ("one", os.urandom(5000)))
    body = bytearray(twice.read_bytes())
    at = body.rfind(b"PK\x01\x02")
    end = body.rfind(b"PK\x05\x06")
    entry = body[at:end]
    tail = bytearray(body[end:])
    tail[8:12] = (2).to_bytes(2, "little") * 2
    tail[12:16] = (2 * len(entry)).to_bytes(4, "little")
    twice.write_bytes(bytes(body[:at]) + bytes(entry) * 2 + bytes(tail))
    assert code_of(list, safe.members(twice)) in ("archive_overlap", "archive_twice")


def test_too_many_members_doubles_and_encryption_are_refused(tmp_path):
    few = replace(LIMITS, members=3)
    entries = [(f"f{i}", b"") for i in range(5)]
    assert code_of(list, safe.members(make_zip(tmp_path / "z", *entries), few)) == "archive_members"
    assert code_of(list, safe.members(make_tar(tmp_path / "t", *entries), few)) == "archive_members"
    with pytest.warns(UserWarning, match="Duplicate"):
        make_zip(tmp_path / "d", ("a", b"1"), ("a", b"2"))
    assert code_of(list, safe.members(tmp_path / "d")) == "archive_twice"
    assert code_of(safe.unpack, make_tar(tmp_path / "u", ("a", b""), ("a/b", b"")), tmp_path / "out") == "archive_twice"


@pytest.mark.parametrize("seed", range(4))
def test_damaged_archives_only_refuse(tmp_path, seed):
    import random

    rng = random.Random(seed)
    made = [
        make_zip(tmp_path / "z", ("a", os.urandom(3000)), ("b/c", b"x" * 3000)),
        *(make_tar(tmp_path / f"t{n}", ("a", os.urandom(3000)), mode=m) for n, m in enumerate(["w", "w:gz", "w:xz"])),
    ]
    for n in range(40):
        raw = bytearray(made[n % len(made)].read_bytes())
        for _ in range(rng.choice([1, 8, 64])):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        (tmp_path / "bad").write_bytes(raw[: rng.randrange(1, len(raw))] if n % 5 == 0 else raw)
        try:
            safe.unpack(tmp_path / "bad", tmp_path / f"out{n}")
        except Refused:
            assert not (tmp_path / f"out{n}").exists()


# ---------------------------------------------------------------- XML

LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">%s]><lolz>&lol9;</lolz>""" % b"".join(
    b'<!ENTITY lol%d "%s">' % (i, b"&lol%d;" % (i - 1) * 10 if i > 1 else b"&lol;" * 10) for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (LAUGHS, "xml_entity"),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "xml_entity"),
        (b'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x.dtd"> %x;]><a/>', "xml_entity"),
        ('<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY x "">]><a/>'.encode("utf-16"), "xml_entity"),
        (b"<a>" * 5000 + b"</a>" * 5000, "xml_bad"),
        (b"<a><b></a>", "xml_bad"),
        (b"", "xml_bad"),
        (b"\x89PNG", "xml_bad"),
    ],
)
def test_xml_with_entities_or_damage_is_refused_fast(text, code):
    started = time.perf_counter()
    assert code_of(safe.xml, text) == code
    assert time.perf_counter() - started < 1


def test_a_doctype_alone_is_neither_fetched_nor_refused(tmp_path):
    text = b'<!DOCTYPE article PUBLIC "-//NLM//DTD JATS" "http://127.0.0.1:9/never.dtd"><article><p>ok</p></article>'
    (tmp_path / "a.xml").write_bytes(text)
    assert safe.xml(text).findtext("p") == safe.xml(tmp_path / "a.xml").findtext("p") == "ok"


def test_xinclude_and_stylesheets_do_nothing():
    text = (
        b'<?xml-stylesheet href="file:///etc/passwd"?><a xmlns:xi="http://www.w3.org/2001/XInclude">'
        b'<xi:include href="file:///etc/passwd" parse="text"/></a>'
    )
    assert "root:" not in "".join(safe.xml(text).itertext())


# ---------------------------------------------------------------- checkpoints


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_is_refused_and_does_not_run(tmp_path):
    torch = pytest.importorskip("torch")
    mark = tmp_path / "ran"
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"w": Evil(mark)}))
    torch.save({"w": torch.ones(2), "x": Evil(mark)}, tmp_path / "zip.pt")
    torch.save({"w": Evil(mark)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    for name in ("plain.pkl", "zip.pt", "old.pt", "module.pt"):
        assert code_of(safe.weights, tmp_path / name) == "pickle", name
    assert not mark.exists()


def test_tensors_come_back_equal_from_both_formats(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    want = {"a.weight": torch.randn(3, 4), "b": torch.arange(5)}
    save_file(want, tmp_path / "m.safetensors")
    torch.save(want, tmp_path / "m.pt")
    torch.save({"state_dict": want, "epoch": 3}, tmp_path / "wrapped.pth")
    torch.save(want, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("m.safetensors", "m.pt", "wrapped.pth", "old.pt"):
        got = safe.weights(tmp_path / name)
        assert got.keys() == want.keys()
        assert all(torch.equal(got[k], want[k]) for k in want)


@pytest.mark.parametrize("data", [b"", b"x" * 50, b"\x80\x02.", b"\xff" * 9 + b"{", b"PK\x03\x04junk"])
def test_damaged_checkpoints_are_refused(tmp_path, data):
    pytest.importorskip("torch")
    (tmp_path / "m").write_bytes(data)
    assert code_of(safe.weights, tmp_path / "m") in ("checkpoint_bad", "pickle", "archive_bad")


def test_a_safetensors_header_that_claims_too_much_is_refused(tmp_path):
    pytest.importorskip("torch")
    head = b'{"w":{"dtype":"F32","shape":[100000,100000],"data_offsets":[0,40000000000]}}'
    (tmp_path / "m").write_bytes(len(head).to_bytes(8, "little") + head + bytes(64))
    assert code_of(safe.weights, tmp_path / "m") == "checkpoint_bad"


# ---------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://example.org/x", "url_scheme"),
        ("file:///etc/passwd", "url_scheme"),
        ("https://user:pw@8.8.8.8/", "url_host"),
        ("https:///x", "url_host"),
        ("https://127.0.0.1/", "url_private"),
        ("https://169.254.169.254/latest/meta-data", "url_private"),
        ("https://10.1.2.3/", "url_private"),
        ("https://[::1]/", "url_private"),
        ("https://2130706433/", "url_address"),  # 127.0.0.1 as one number
    ],
)
def test_urls_that_lead_inside_are_refused(url, code):
    assert code_of(safe.check_url, url, True) == code


def test_without_the_flag_no_url_is_looked_up(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("looked up"))
    assert code_of(safe.check_url, "https://example.org/") == "network_off"
    assert safe.check_url("http://pacs.local/", True, private=True) == "http://pacs.local/"


# ---------------------------------------------------------------- whole or absent


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail():
        with safe.write_whole(path) as out:
            out.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]
    with safe.write_whole(path) as out:
        out.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_a_folder_appears_whole_or_not(tmp_path):
    def write(*, stop, replace=False):
        with safe.folder_whole(tmp_path / "d", replace=replace) as folder:
            (folder / "f").write_bytes(b"new" if replace else b"old")
            assert not stop, "stopped on purpose"

    with pytest.raises(AssertionError):
        write(stop=True)
    assert os.listdir(tmp_path) == []
    write(stop=False)
    with pytest.raises(UsageError):
        write(stop=False)
    with pytest.raises(AssertionError):
        write(stop=True, replace=True)
    assert (tmp_path / "d/f").read_bytes() == b"old"
    write(stop=False, replace=True)
    assert (tmp_path / "d/f").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["d"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_full_and_keeps_nothing(tmp_path, monkeypatch, number):
    def full(fd):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)

    def file():
        with safe.write_whole(tmp_path / "a") as out:
            out.write(b"x")

    def folder():
        with safe.folder_whole(tmp_path / "d") as made:
            (made / "f").write_bytes(b"x")

    for write in (file, folder):
        with pytest.raises(Full):
            write()
        assert os.listdir(tmp_path) == []


LIMITED = """
import os, resource, signal, sys
from fabrica import errors, safe
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    with safe.write_whole(sys.argv[1] + "/a") as out:
        for _ in range(100):
            out.write(bytes(65536))
except errors.Full as error:
    print(error.code, os.listdir(sys.argv[1]))
"""


def test_a_real_write_limit_of_the_system_is_full(tmp_path):
    assert hasattr(resource, "RLIMIT_FSIZE")
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "disk_full []"


KILLED = """
import sys
from fabrica import safe
with safe.write_whole(sys.argv[1] + "/a") as out:
    out.write(b"new" * 1000); out.flush(); print("ready", flush=True)
    sys.stdin.read()
"""


def test_kill_9_in_the_middle_leaves_the_old_file_in_sight(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert [p.name for p in Path(tmp_path).glob("[!.]*")] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
