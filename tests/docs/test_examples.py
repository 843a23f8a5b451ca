"""The Python of the documentation runs as it is written, against a Hub on this machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.adapters import write_adapter
from builders.hubs import adapters_on_hub, with_tests
from hub_server import HubServer

_ROOT = Path(__file__).parents[2]
_SHOWN = """
import json
print(json.dumps({"verdict": report.verdict, "rows": len(report.measurements.to_pandas())}))
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """`org/model` of `org/base-0` among others, and a policy in the working directory."""
    with adapters_on_hub(tmp_path, monkeypatch) as server:
        model = write_adapter(tmp_path / "model", seed=7, base_model_name_or_path="org/base-0")
        server.add("org/model", {path.name: path for path in model.iterdir()})
        Path("policy.yaml").write_text("version: 1\nfail: [{severity: high}]\n")
        yield server


def python_of(page: str) -> str:
    """The block that shows the API."""
    blocks = re.findall(r"^```python\n(.*?)^```", (_ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    [block] = [block for block in blocks if "import ftsec_audit as fa" in block]
    return str(block)


def run(script: str) -> str:
    Path("script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py"], env=with_tests(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
def test_one_scan(hub: HubServer, page: str) -> None:
    shown = json.loads(run(python_of(page) + _SHOWN))
    assert shown["verdict"] in ("pass", "inconclusive")
    assert shown["rows"] > 0


@pytest.mark.slow
@pytest.mark.timeout(900)  # Ray starts several processes, which a busy machine takes minutes for
def test_many_on_ray(hub: HubServer) -> None:
    pytest.importorskip("ray")
    shown = run('references = ["org/a0", "org/model"]\n' + python_of("docs/batch.md"))
    assert sorted(line.partition("@")[0] for line in shown.splitlines()) == ["org/a0", "org/model"]
    assert len(list(Path("results").glob("*/*.json"))) == 2
