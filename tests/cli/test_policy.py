"""`ftsec-audit policy`: mistakes with their lines, and what every clause says and does."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest
from builders import reports

from ftsec_audit import api, cli
from ftsec_audit.policy import SHIPPED


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "failing.json"
    path.write_text(api.render(reports.failing(), "json"))
    return path


def policy(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\n" + text)
    return path


class TestCheck:
    @pytest.mark.parametrize("name", SHIPPED)
    def test_the_shipped_ones_are_valid(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["policy", "check", name]) == 0
        assert capsys.readouterr().out == f"policy {name} is valid\n"

    def test_names_the_line_of_a_mistake(self, tmp_path: Path, capsys) -> None:
        assert cli.run(["policy", "check", str(policy(tmp_path, "fail:\n  - {severity: hihg}\n"))]) == 2
        assert "line 3: fail[0].severity" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("text", "where"),
        [
            ("require:\n  - FTA1\n  - FTA9\n", "line 4: require[1]"),
            ("fail:\n  - rules: [FTA1, FTA888]\n", "line 3: fail[0]"),
            ("overrides:\n  - {rule: FTA999, severity: low, reason: x}\n", "line 3: overrides[0]"),
            ("waivers:\n- {id: FTA9, expired_at: 2099-01-01, statement: x}\n", "line 3: waivers[0]"),
        ],
    )
    def test_a_rule_that_does_not_exist_is_a_mistake(self, tmp_path, text, where, capsys) -> None:
        assert cli.run(["policy", "check", str(policy(tmp_path, text))]) == 2
        assert where in capsys.readouterr().err

    def test_a_waiver_has_to_expire_and_to_say_why(self, tmp_path: Path, capsys) -> None:
        text = "waivers:\n  - {id: FTA301, statement: x}\n  - {id: FTA301, expired_at: 2099-01-01}\n"
        assert cli.run(["policy", "check", str(policy(tmp_path, text))]) == 2
        complaint = capsys.readouterr().err
        assert "line 3: waivers[0].expired_at" in complaint
        assert "line 4: waivers[1].statement" in complaint

    def test_an_expired_waiver_is_listed_with_its_line(self, tmp_path: Path, capsys) -> None:
        text = "waivers:\n  - {id: FTA301, expired_at: 2001-01-01, statement: x}\n"
        assert cli.run(["policy", "check", str(policy(tmp_path, text))]) == 0
        assert "line 3: waivers[0] has expired" in capsys.readouterr().err

    def test_several_files_are_all_checked(self, tmp_path: Path, capsys) -> None:
        bad = policy(tmp_path, "fail: [{}]\n")
        assert cli.run(["policy", "check", str(bad), "default"]) == 2
        assert "default is valid" in capsys.readouterr().out


class TestExplain:
    def test_every_clause_has_its_line(self, tmp_path: Path, capsys) -> None:
        text = "fail:\n  - rules: [FTA401]\n\nwarn:\n  - severity: low\nrequire: [FTA1]\n"
        assert cli.run(["policy", "explain", str(policy(tmp_path, text))]) == 0
        shown = [line.split() for line in capsys.readouterr().out.splitlines()]
        places = {words[0]: words[1:3] for words in shown[1:]}
        assert places["fail[0]"] == ["line", "3"]
        assert places["warn[0]"] == ["line", "6"]
        assert places["require[0]"] == ["line", "7"]
        assert "incomplete" in places, "what no file needs to say is said too"

    def test_on_a_report_it_says_what_each_clause_made_of_it(self, stored: Path, capsys) -> None:
        assert cli.run(["policy", "explain", "default", "--on", str(stored)]) == 1
        shown = capsys.readouterr().out.splitlines()
        assert shown[0].endswith(": FAIL")
        after = shown[next(i for i, line in enumerate(shown) if line.startswith("  fail[0]")) + 1 :]
        assert after[0].strip() == "→ FTA301 is critical, confidence high"
        assert any(line.strip() == "→ nothing" for line in after)

    def test_every_reason_of_every_shipped_policy_belongs_to_a_clause(self) -> None:
        from ftsec_audit import policy_account
        from ftsec_audit.policy import Policy

        for name in SHIPPED:
            policy = Policy.load(name)
            for report in (reports.failing(), reports.inconclusive(), reports.hostile()):
                decision = api.judged(report, policy).decision
                told = [
                    made
                    for account in policy_account.clauses(policy)
                    for made in policy_account.made_of(account, decision)
                ]
                others = [r for r in decision.reasons if r.startswith(("on_inconclusive", "accepted"))]
                assert len(told) + len(others) == len(decision.reasons)


class TestWhatIf:
    def test_a_verdict_that_changes_is_said(self, tmp_path: Path, stored: Path, capsys) -> None:
        permissive = policy(tmp_path, "name: lax\nwarn: [{severity: low}]\n")
        assert cli.run(["report", str(stored), "--policy", str(permissive), "-f", "jsonl"]) == 0
        assert "FAIL (policy default) → PASS (policy lax)" in capsys.readouterr().err

    def test_a_waiver_counts_until_its_day_and_only_in_its_own_policy(
        self, tmp_path: Path, stored: Path, capsys
    ) -> None:
        def judged(source: str | Path, result: Path) -> tuple[int, str]:
            again = tmp_path / "again.json"
            code = cli.run(["report", str(result), "--policy", str(source), "-f", f"json={again}"])
            return code, again.read_text()

        until = date.today() + timedelta(days=1)
        waived = policy(
            tmp_path,
            "fail: [{severity: high}]\nwaivers:\n"
            + f"  - {{id: FTA3, expired_at: {until}, statement: extended vocabulary (J. Doe)}}\n"
            + f"  - {{id: FTA2, artifact: 'mallory/*', expired_at: {until}, statement: known}}\n",
        )
        code, text = judged(waived, stored)
        assert code == 0
        assert "waivers[0]: FTA301 does not count: extended vocabulary (J. Doe)" in text
        result = tmp_path / "waived.json"
        result.write_text(text)
        code, text = judged("default", result)
        assert code == 1, "another policy does not know the waiver"
        assert "waivers[0]" not in text
        waived.write_text(waived.read_text().replace(str(until), str(date.today())))
        code, text = judged(waived, result)
        assert code == 1
        assert "waivers[0]: FTA3 (extended vocabulary (J. Doe)) expired" in text
