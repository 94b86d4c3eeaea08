"""What is shipped and how: the release check, the workflows, lower bounds, and files that the packaging needs."""

import re
import tomllib
from pathlib import Path

import pytest
import release_check
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="no .github here: a copy of the tests alone")


@pytest.fixture
def releasable(tmp_path):
    """A checkout that may be released as 1.2.3."""
    files = {
        "pyproject.toml": '[project]\nname = "x"\n[project.urls]\nRepository = "https://example.org"\n',
        "induction_kernel/__init__.py": '__version__ = "1.2.3"\n',
        "CITATION.cff": "title: x\nversion: 1.2.3\n",
        "CHANGELOG.md": "# Changelog\n\n## [1.2.3] - 2027-01-31\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_release_has_one_version_a_date_and_an_address(releasable):
    assert release_check.wrong(releasable, "v1.2.3") == []
    assert "the tag is v1.2.4" in release_check.wrong(releasable, "v1.2.4")[0]
    for name, old, new, said in [
        ("CITATION.cff", "1.2.3", "1.2.2", "CITATION.cff has version 1.2.2"),
        ("CHANGELOG.md", "2027-01-31", "unreleased", "no section of 1.2.3 with a date"),
        ("pyproject.toml", "Repository", "Home", "has no Repository"),
    ]:
        text = (releasable / name).read_text()
        (releasable / name).write_text(text.replace(old, new))
        (found,) = release_check.wrong(releasable, "v1.2.3")
        assert said in found
        (releasable / name).write_text(text)


def test_the_version_is_cited():
    said = [each for each in release_check.wrong(ROOT, "v0") if "CITATION" in each]
    assert said == []


def test_workflows_test_three_pythons_and_both_majors_by_targets_that_exist():
    read = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in WORKFLOWS}
    matrix = read["tests"]["jobs"]["tests"]["strategy"]["matrix"]
    listed = [
        each.rpartition(" ")[2] for each in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", each)
    ]
    assert matrix["python"] == listed
    assert matrix["target"] == ["test", "test-tl4"]
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for workflow in read.values():
        for job in workflow["jobs"].values():
            chosen = job.get("strategy", {}).get("matrix", {}).get("target", [])
            for step in job["steps"]:
                made = re.findall(r"^make PYTHON=python (.+)$", step.get("run", ""), re.MULTILINE)
                wanted = {
                    each for line in made for each in line.split() if re.fullmatch(r"[a-z0-9-]+", each)
                } | set(chosen)
                assert wanted <= targets


def test_only_a_job_that_publishes_may_write():
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}
        for name, job in workflow["jobs"].items():
            assert ("permissions" in job) == (name == "publish"), f"{path.name}: {name}"


def test_the_lowest_versions_are_the_bounds():
    """`make test-lowest` runs exactly the lower bounds that pyproject.toml promises, but for torch."""
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and line[0] != "#")
    extras = [each for name in ("gguf", "dask", "widget") for each in PROJECT["optional-dependencies"][name]]
    bounds = dict(
        re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(PROJECT["dependencies"] + extras), re.MULTILINE)
    )
    assert bounds.pop("torch")
    for name, bound in bounds.items():
        found = pinned[name].split(".")
        wanted = bound.split(".")
        assert found[: len(wanted)] == wanted, f"{name}: {pinned[name]} is run, {bound} is promised"
        assert set(found[len(wanted) :]) <= {"0"} or name in LATER, name


# Bounds whose first version was never published, or withdrawn: the first after it is run.
LATER: dict[str, str] = {}
