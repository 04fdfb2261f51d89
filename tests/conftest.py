"""What tests share."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests import `plans`, which is no package


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update",
        action="store_true",
        help="rewrite the expected files of tests/cases; review the change",
    )


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    """Whether expected files are rewritten instead of compared."""
    return bool(request.config.getoption("--update"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data that lies beside the repository; the test is skipped where it does not."""
    folder = Path(__file__).parents[1] / "../shared/data"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not beside this repository")
    return folder.resolve()


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped recipes where they can be spoilt: amending files lie beside what they amend."""
    folder = tmp_path_factory.mktemp("copied")
    for name in ("pipelines", "stdlib"):
        shutil.copytree(Path(__file__).parents[1] / name, folder / name)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: what is plainly wrong shows within seconds."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
