import pytest


@pytest.fixture(autouse=True)
def no_contexts(tmp_path_factory, monkeypatch):
    """Whatever contexts the developer has, no test uses them."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("configuration")))
    for name in ("TOKENRY_CONTEXT", "TOKENRY_CONTEXTS", "TOKENRY_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
