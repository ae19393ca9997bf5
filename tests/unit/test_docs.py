"""The documents say what the code does; run this file to write the table of settings anew."""

import re
from pathlib import Path

from msgspec import NODEFAULT
from msgspec.structs import FieldInfo, fields

from recsys_assets.settings import Settings, project_root
from serving.settings import ServingSettings

DOCUMENTS = Path(__file__).parents[2]
CONFIGURING = DOCUMENTS / "docs" / "configuring.md"
BEGIN, END = "<!-- settings -->\n", "<!-- end of settings -->"


def settings_table() -> str:
    """A row for every setting, in the order of the code."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, Path):
            default = f"{default}/"
        elif isinstance(default, list):
            default = ",".join(default)
        elif isinstance(default, bool):
            default = str(default).lower()
        elif isinstance(default, float):
            default = f"{default:g}"
        shown = "" if default is None else f"`{default}`"
        rows.append(f"| `RECSYS_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(rows) + "\n"


def shown(field: FieldInfo) -> str:
    """A default of the API's as the table has it."""
    if field.default_factory is not NODEFAULT:
        return "cores"
    default = "" if field.default in (NODEFAULT, None) else field.default
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_table_of_settings_is_that_of_the_code() -> None:
    text = CONFIGURING.read_text()
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)] == settings_table()


def test_the_settings_of_the_api_stand_there_with_their_defaults() -> None:
    text = CONFIGURING.read_text()
    table = text[text.index("The API has settings of its own") :].split("\n\n")[1]
    rows = (row.strip("|").split("|")[:2] for row in table.splitlines()[2:])
    told = {
        name: default.strip(" `") for names, default in rows for name in re.findall(r"\w+", names)
    }
    assert told == {field.encode_name: shown(field) for field in fields(ServingSettings)}


def test_links_between_documents_lead_somewhere() -> None:
    pages = [*DOCUMENTS.glob("*.md"), *(DOCUMENTS / "docs").glob("*.md")]
    links = [
        (page.name, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert len(pages) > 4
    assert links == []


def test_the_checkout_is_the_project_root() -> None:
    assert project_root() == DOCUMENTS


if __name__ == "__main__":
    text = CONFIGURING.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    CONFIGURING.write_text(before + settings_table() + after)
