"""FTA202: a module out of line with its siblings, not with an absolute threshold."""

from __future__ import annotations

import pytest
from builders.adapters import write_adapter
from builders.audits import audit, finding

from detectors.module_outlier import ModuleOutlier, theil_sen
from ftsec_audit.calibration.bank import Calibration
from ftsec_audit.types import Confidence, Outcome


def judged(path):
    result = audit(ModuleOutlier(), path, calibration=Calibration.empty())
    return finding(result, "FTA202"), result


def scaled(factor):
    """Every update multiplied by `factor(layer)`."""

    def edit(tensors):
        for name, tensor in tensors.items():
            if "lora_B" in name:
                tensor *= factor(int(name.split(".layers.")[1].split(".")[0]), name)

    return edit


def test_an_even_adapter(tmp_path):
    found, result = judged(write_adapter(tmp_path / "a", layers=24))
    assert found.outcome is Outcome.NOT_DETECTED
    assert found.evidence[0].value < 8
    assert not result.leads


def test_a_module_out_of_line_is_named_and_proposed(tmp_path):
    edit = scaled(lambda layer, name: 40.0 if layer == 17 and "v_proj" in name else 1.0)
    found, result = judged(write_adapter(tmp_path / "a", layers=24, edit=edit))
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.LOW)
    assert found.evidence[0].location.tensor == "model.layers.17.self_attn.v_proj"
    assert "uncalibrated" in found.summary
    assert [(lead.kind, lead.value) for lead in result.leads] == [("layer", "17")]


def test_a_trend_over_depth_is_no_outlier(tmp_path):
    edit = scaled(lambda layer, name: 1.3**layer)
    assert judged(write_adapter(tmp_path / "a", layers=24, edit=edit))[0].outcome is Outcome.NOT_DETECTED


def test_a_smaller_module_is_no_outlier(tmp_path):
    edit = scaled(lambda layer, name: 1e-3 if layer == 5 else 1.0)
    assert judged(write_adapter(tmp_path / "a", layers=24, edit=edit))[0].outcome is Outcome.NOT_DETECTED


def test_small_families_have_no_norm(tmp_path):
    found, _ = judged(write_adapter(tmp_path / "a", layers=12))
    assert found.outcome is Outcome.NOT_APPLICABLE
    assert "16" in found.summary


def test_equal_modules_differ_by_nothing(tmp_path):
    def edit(tensors):
        first = {
            name.split(".")[-3] + name[-15:]: t.clone() for name, t in tensors.items() if ".layers.0." in name
        }
        for name, tensor in tensors.items():
            tensor.copy_(first[name.split(".")[-3] + name[-15:]])

    found, _ = judged(write_adapter(tmp_path / "a", layers=20, edit=edit))
    assert found.outcome is Outcome.NOT_DETECTED
    assert found.evidence[0].value == pytest.approx(0.0, abs=1e-3)


def test_the_line_ignores_outliers():
    x = [float(i) for i in range(20)]
    y = [3.0 * value - 1.0 for value in x]
    y[4] = y[11] = 1e6
    assert theil_sen(x, y) == pytest.approx((3.0, -1.0))


def test_the_line_through_one_place():
    assert theil_sen([2.0, 2.0], [1.0, 5.0]) == (0.0, 3.0)
