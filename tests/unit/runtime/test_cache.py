from pathlib import Path

from prod9.runtime.cache import cache_dir


def test_cache_folder_by_precedence(monkeypatch):
    monkeypatch.setenv("PROD9_CACHE", "/a/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/a/xdg")
    assert cache_dir() == Path("/a/own")
    monkeypatch.setenv("PROD9_CACHE", "")
    assert cache_dir() == Path("/a/xdg/prod9")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_dir() == Path("/home/someone/.cache/prod9")
    monkeypatch.setenv("PROD9_CACHE", "~/models")
    assert cache_dir() == Path("/home/someone/models")
