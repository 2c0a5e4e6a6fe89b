"""The commands of the described systems, in their own form."""

import importlib
import json


def understood(script: str, words: list[str], capsys) -> dict:
    """The options that a command reads of `words`; nothing is run."""
    main = importlib.import_module(f"scripts.{script}").main
    try:
        main([*words, "--dry_run"])
    except SystemExit as error:
        assert error.code in (0, None), capsys.readouterr().err
    return json.loads(capsys.readouterr().out)
