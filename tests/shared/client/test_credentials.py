import json

import pytest

from tokenry.client.credentials import CredentialsFolder, find_credentials
from tokenry.errors import ConfigurationError, TokenFetchError
from tokenry.secret import Secret


def find(environ=None, *, client_id=None, client_secret=None, folder=None, grant="client_credentials"):
    return find_credentials(
        environ=environ or {}, client_id=client_id, client_secret=client_secret, folder=folder, grant=grant
    )


def write(folder, file, **members):
    (folder / file).write_text(json.dumps(members))


def test_arguments_come_first():
    found = find({"TOKENRY_CLIENT_ID": "x", "TOKENRY_CLIENT_SECRET": "y"}, client_id="a", client_secret="b")
    assert (found.read().client_id, found.read().client_secret) == ("a", Secret("b"))
    assert find(client_id="a", client_secret=Secret("b")).read().client_secret == Secret("b")


def test_then_the_environment():
    found = find({"TOKENRY_CLIENT_ID": "x", "TOKENRY_CLIENT_SECRET": "y", "CREDENTIALS_DIR": "/z"})
    assert (found.read().client_id, found.description) == ("x", "TOKENRY_CLIENT_ID")


def test_the_secret_may_be_in_a_file_that_is_replaced(tmp_path):
    file = tmp_path / "secret"
    file.write_text("one\n")
    found = find({"TOKENRY_CLIENT_ID": "x", "TOKENRY_CLIENT_SECRET_FILE": str(file)})
    assert found.read().client_secret == Secret("one")
    file.write_text("two")
    assert found.read().client_secret == Secret("two")
    file.write_text(" ")
    with pytest.raises(TokenFetchError, match="empty"):
        found.read()


def test_then_a_folder_read_anew_each_time(tmp_path):
    write(tmp_path, "client.json", client_id="a", client_secret="1", more=True)
    found = find({"CREDENTIALS_DIR": str(tmp_path)})
    assert found.read().client_secret == Secret("1")
    write(tmp_path, "client.json", client_id="b", client_secret="2")
    assert (found.read().client_id, found.read().client_secret) == ("b", Secret("2"))


def test_the_password_grant_reads_the_user_too(tmp_path):
    write(tmp_path, "client.json", client_id="a", client_secret="1")
    write(tmp_path, "user.json", application_username="u", application_password="p")
    secrets = find(folder=tmp_path, grant="password").read()
    assert (secrets.username, secrets.password) == ("u", Secret("p"))
    assert find(folder=tmp_path).read().username is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"client_id":"a"}',
        '{"client_id":"a","client_secret":null}',
        '{"client_id":5,"client_secret":"s3cr"}',
        '{"client_id":"","client_secret":"s3cr"}',
        '{"client_id":"a","client_id":"b","client_secret":"s3cr"}',
        " " * 70_000,
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_its_content_is_not(tmp_path, content):
    (tmp_path / "client.json").write_text(content)
    with pytest.raises(TokenFetchError) as caught:
        CredentialsFolder(folder=tmp_path).read()
    assert "client.json" in str(caught.value)
    assert "s3cr" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TokenFetchError, match=r"client\.json cannot be used: No such file"):
        CredentialsFolder(folder=tmp_path).read()


@pytest.mark.parametrize(
    ("environ", "arguments"),
    [
        ({}, {}),
        ({}, {"client_id": "a"}),
        ({}, {"client_secret": "a"}),
        ({}, {"client_id": "a", "client_secret": "b", "grant": "password"}),
        ({"TOKENRY_CLIENT_ID": "a"}, {}),
        ({"TOKENRY_CLIENT_ID": "", "TOKENRY_CLIENT_SECRET": "b"}, {}),
        ({"TOKENRY_CLIENT_ID": "a", "TOKENRY_CLIENT_SECRET": "b", "TOKENRY_CLIENT_SECRET_FILE": "c"}, {}),
        ({"TOKENRY_CLIENT_ID": "a", "TOKENRY_CLIENT_SECRET": "b"}, {"grant": "password"}),
    ],
)
def test_half_a_configuration_is_none(environ, arguments):
    with pytest.raises(ConfigurationError):
        find(environ, **arguments)


def test_all_faults_are_named_at_once():
    with pytest.raises(ConfigurationError) as caught:
        find({"TOKENRY_CLIENT_ID": ""}, grant="password")
    assert len(caught.value.faults) == 3
