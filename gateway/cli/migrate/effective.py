"""What is in force of a launch: flags and variables merged as TGI's launcher does it, and what it would refuse.

The flag wins over the variable (clap). What does not come into force has its line in the report all the same.
"""

from backends.tgi.launcher_flags import BY_NAME
from gateway.cli.migrate.fates import Fate, ReportRow
from gateway.cli.migrate.launch import Launch, LaunchSetting, unresolved


class Merged:
    """The settings in force, by name, and the lines of those that are not."""

    def __init__(self, launch: Launch) -> None:
        self.values: dict[str, LaunchSetting] = {}
        self.rows: list[ReportRow] = []
        for setting in launch.settings:
            self._take(setting)
        self._refused()

    def _take(self, setting: LaunchSetting) -> None:
        flag = BY_NAME.get(setting.name)
        if setting.fault:
            self._row(Fate.BLOCKED, setting, f"TGI refuses it: {setting.fault}")
        elif flag is not None and not setting.is_flag and not setting.value and setting.reference is None:
            self._row(Fate.DROPPED, setting, "empty: taken as not set")
        else:
            self._in_force(_filled(setting), repeats=flag is not None and flag.kind == "texts")

    def _in_force(self, setting: LaunchSetting, repeats: bool) -> None:
        before = self.values.get(setting.name)
        if before is None:
            self.values[setting.name] = setting
        elif before.is_flag and setting.is_flag and repeats:
            self._row(Fate.MAPPED, before, f"together with {setting.place}")
            self.values[setting.name] = LaunchSetting(
                setting.source, setting.name, f"{before.value},{setting.value}", setting.place, is_flag=True
            )
        elif before.is_flag and setting.is_flag:
            self._row(Fate.BLOCKED, setting, f"TGI refuses it: it is given at {before.place} already")
        else:
            wins = "the flag wins" if setting.is_flag and not before.is_flag else "the later one wins"
            self._row(Fate.DROPPED, before, f"{setting.shown} at {setting.place}: {wins}")
            self.values[setting.name] = setting

    def _refused(self) -> None:
        """Note what the launcher refuses together (`main` in its main.rs)."""
        both = self.values.get("--max-input-length"), self.values.get("--max-input-tokens")
        if both[0] is not None and both[1] is not None:
            self._withdraw(both[0], "TGI refuses it beside --max-input-tokens, which is its new name")
        prompt, total = self.values.get("--max-input-tokens") or both[0], self.values.get("--max-total-tokens")
        if prompt and total and _whole(prompt) >= _whole(total) > 0:
            self._withdraw(prompt, f"TGI refuses it: it must be below --max-total-tokens ({total.value})")
        shards = self.values.get("--num-shard")
        if shards and "--sharded" in self.values and self.values["--sharded"].value == "true" and _whole(shards) == 1:
            self._withdraw(shards, "TGI refuses it beside --sharded true")

    def _withdraw(self, setting: LaunchSetting, why: str) -> None:
        self.values.pop(setting.name, None)
        self._row(Fate.BLOCKED, setting, why)

    def _row(self, fate: Fate, setting: LaunchSetting, why: str) -> None:
        self.rows.append(ReportRow(fate, setting.shown, setting.place, why=why))


def _filled(setting: LaunchSetting) -> LaunchSetting:
    """Return a setting with Kubernetes' `$(NAME)` for a value that only the cluster knows: its arguments take that."""
    if setting.reference is None or setting.value:
        return setting
    return LaunchSetting(
        setting.source, setting.name, f"$({setting.source})", setting.place, reference=setting.reference
    )


def _whole(setting: LaunchSetting) -> int:
    """Return a setting's number; -1 if it is not known."""
    return -1 if unresolved(setting.value) or not setting.value.isdecimal() else int(setting.value)
