"""What tests share."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.editor import Editor

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


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    from tests.editor import editor

    with editor(tmp_path_factory.mktemp("recipes")) as made:
        yield made


@pytest.fixture
def ide(shared: Editor) -> Iterator[Editor]:
    """The one editor with nothing open and nothing on disk. Whatever a test asks, the server must not fail inside."""
    shared.client.log_messages.clear()
    yield shared
    shared.close()
    assert shared.complaints() == []
    for path in shared.folder.glob("*"):
        path.unlink()
