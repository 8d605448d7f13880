"""docs/third-party.md names the packages of requirements.txt, with their licenses."""

from email.message import Message

import pytest

from tests.docs import third_party


def test_the_page_is_what_make_docs_writes() -> None:
    assert third_party.PAGE.text == third_party.PAGE.expected(), "run `make docs`"


def test_every_required_package_has_a_row() -> None:
    names = third_party.required()
    assert {"django", "pycurl", "celery"} <= set(names)
    # No requirement line of the compiled file was missed.
    lines = third_party.REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    assert len(names) == len([line for line in lines if "==" in line])
    assert [name for name in names if f"| [{name}](" not in third_party.PAGE.text] == []


@pytest.mark.parametrize(
    ("fields", "spdx"),
    [
        ({"License-Expression": "MIT-0", "License": "other"}, "MIT-0"),
        ({"License": "ISC", "Classifier": "License :: OSI Approved :: BSD License"}, "ISC"),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
    ],
)
def test_a_license_is_read_from_the_best_field(fields: dict[str, str], spdx: str) -> None:
    assert third_party.license_of(package(fields)) == spdx


@pytest.mark.parametrize("said", ["", "Proprietary", "GPL"])
def test_an_unknown_license_is_refused(said: str) -> None:
    with pytest.raises(third_party.LicenseUnknownError, match="example"):
        third_party.license_of(package({"License": said}))


def package(fields: dict[str, str]) -> Message:
    found = Message()
    found["Name"] = "example"
    for name, value in fields.items():
        found[name] = value
    return found
