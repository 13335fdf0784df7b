"""The scripted policies of the metaworld package, without its environments.

Those want packages that nothing here needs, and a MuJoCo older than ours.
"""

import importlib
import importlib.util
import pathlib
import sys
import types


def scripted_policy(name):
    """Returns the package's policy of a task, which acts on an observation `[39]`."""
    if "metaworld" not in sys.modules:
        found = importlib.util.find_spec("metaworld")
        assert found
        assert found.origin
        package = types.ModuleType("metaworld")
        package.__spec__ = found
        package.__path__ = [str(pathlib.Path(found.origin).parent)]
        sys.modules["metaworld"] = package
    policies = importlib.import_module("metaworld.policies")
    return policies.ENV_POLICY_MAP[f"{name}-v3"]()
