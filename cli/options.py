"""`emul options [key]`: what can be set, with its default and what it means."""

from __future__ import annotations

from data_pipelines.conventions.suggestions import nearest_name
from emul.config.options import Option, options
from emul.terminal.console import table


def main(arguments: list[str]) -> int:
    """List the options of a key, of all below it, or of a part such as `model.sfno`; without a key, of the verbs."""
    if len(arguments) > 1:
        raise ValueError(f"emul options takes one key, such as training.batch_size; got {' '.join(arguments)}.")
    found = matching_options(options(), arguments[0] if arguments else "")
    shown = {(option.key, option.default, option.comment): option for option in found}
    table(["option", "default", "what it is"], [[o.key, o.default or "", o.comment] for o in shown.values()])
    return 0


def matching_options(known: list[Option], key: str) -> list[Option]:
    """The options that a key, the beginning of keys, or a part names. Raises ValueError for a key that none has."""
    if not key:
        return [option for option in known if "/" not in option.file]
    file = key.replace(".", "/", 1)
    found = [option for option in known if option.file == file]
    found = found or [option for option in known if option.key == key or option.key.startswith(f"{key}.")]
    if not found:
        names = [*dict.fromkeys(o.key for o in known), *dict.fromkeys(o.file.replace("/", ".") for o in known)]
        best = nearest_name(key, names)
        raise ValueError(
            f"There is no option '{key}'; {f'did you mean {best}?' if best else '`emul options` lists all.'}"
        )
    return found
