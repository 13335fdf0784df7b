"""Makes the committed recordings `reference/` from the whole public ones.

    python tests/data/make_reference_subset.py FOLDER_OF_ALL_RECORDINGS

Every quantity that the tests look at stays, for the cases named here. Weights that
follow from a seed, arrays that no test reads, and two rows of three of the slow
environments are left out.
"""

import json
import pathlib
import shutil
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "reference_parity"))

from recordings import seeded_weight  # noqa: E402  # pyright: ignore

OUTPUT = HERE / "reference"
CASES = {
    "encoders": (
        "small_trajectory_L1_K3",
        "small_trajectory_L3_K1",
        "small_transitionIndividualY_L1_K3",
        "small_transitionIndividualY_L3_K1",
        "small_transitionSharedY_",
        "refinit_transitionSharedY_add",
        "real_transitionSharedY_mlp",
    ),
    "elbo": (
        "small_transitionSharedY_add_L3_K3_network_ccl1_diff1",
        "small_transitionSharedY_add_L1_K3_fixedOnY_ccl0_diff0",
        "small_transitionSharedY_add_L1_K1_network_ccl0_diff0",
        "small_transitionSharedY_add_softmax_L3_K3_fixedOnY_ccl1_diff0",
        "small_transitionSharedY_multiply_L3_K3_fixedOnY_ccl0_diff1",
        "small_transitionSharedY_linear_L3_K3_network_ccl0_diff0",
        "small_transitionSharedY_mlp_L3_K3_fixedOnY_ccl0_diff0",
        "small_trajectory_L3_K3_network_ccl0_diff0",
        "small_trajectory_L1_K1_fixedOnY_ccl1_diff0",
        "small_transitionIndividualY_L3_K3_network_ccl0_diff1",
        "small_transitionIndividualY_L1_K3_fixedOnY_ccl0_diff0",
        "steps3_transitionSharedY",
        "real_transitionSharedY_add_network",
    ),
    "recon_trace": (
        "short_sharedY_add",
        "short_individualY",
        "early_stop_logic",
    ),
    "sac": (
        "small_L1_log_alpha-1.3_discount0.9_scale3",
        "small_L3_parametrized_alpha",
        "real_parametrized_alpha",
    ),
    "replay": ("trajectory_L1", "transitionSharedY_L3", "transitionIndividualY_L1"),
    "context": (
        "transitionSharedY_norm1_stats1_stoch",
        "transitionSharedY_norm1_stats0_det",
        "transitionSharedY_norm0_stats1_stoch",
        "trajectory_norm1_stats1_det",
        "transitionIndividualY_norm1_stats1_stoch",
    ),
    "envs": ("cheetah", "ant", "hopper", "walker", "humanoid", "change_"),
}
"""File -> how the names of its cases begin."""
UNITS = {"encoders": "unit_gaussian/", "sac": "policy_unit/"}
UNREAD = {
    "elbo": ("eps_all", "returned_state_loss", "returned_reward_loss"),
    "recon_trace": (),
    "sac": ("oldq_", "step2/"),
    "replay": ("storage_", "draws_", "empty/", "next_task_indicators"),
    "envs": ("resync_", "com_xy_after_forward", "com_xy_before_forward", "warmstart"),
}
"""File -> parts of the names of arrays that no test reads."""
WITH_ADAM_STEP = ("add_L3_K3", "IndividualY_L1_K3", "steps3", "real", "L1_K1_network")
THINNED = ("humanoid", "ant", "hopper", "walker", "cheetah_vel", "cheetah_dir")


def is_kept(file, case, name):
    if any(part in name for part in UNREAD.get(file, ())):
        return False
    if file == "elbo" and "/params_after/" in name:
        return any(part in case for part in WITH_ADAM_STEP)
    return not (case.startswith("real") and name.startswith(f"{case}/step1/"))


def follows_from_seed(meta, name, array):
    """Whether an array is a weight that the reader can make itself."""
    if "/params/" not in name:
        return False
    name = name.split("/params/")[1]
    shape = meta.get("param_shapes", {}).get(name)
    return shape is not None and np.array_equal(
        array, seeded_weight(meta["case_seed"], name, tuple(shape))
    )


def thin(case, array):
    return array[::3] if case.startswith(THINNED) and len(array) == 100 else array


def subset(source, file):
    """Returns the kept arrays and the description of the kept cases."""
    description = json.loads((source / f"{file}.json").read_text())
    description["cases"] = {
        case: meta
        for case, meta in description["cases"].items()
        if case.startswith(CASES[file]) and meta.get("ok", True)
    }
    metas = dict(description["cases"])
    for meta in description["cases"].values():
        metas.setdefault(meta.get("weights_id") or "", meta)
    arrays = {}
    with np.load(source / f"{file}.npz") as archive:
        for name in archive.files:
            case = name.split("/")[0]
            unit = file in UNITS and name.startswith(UNITS[file])
            if unit or (case in metas and is_kept(file, case, name)):
                array = archive[name]
                if unit or not follows_from_seed(metas[case], name, array):
                    arrays[name] = thin(case, array) if array.ndim else array
    return arrays, description


def main():
    source = pathlib.Path(sys.argv[1])
    OUTPUT.mkdir(exist_ok=True)
    for file in CASES:
        arrays, description = subset(source, file)
        np.savez_compressed(OUTPUT / f"{file}.npz", **arrays)
        (OUTPUT / f"{file}.json").write_text(json.dumps(description) + "\n")
    shutil.copyfile(source / "init.json", OUTPUT / "init.json")


if __name__ == "__main__":
    main()
