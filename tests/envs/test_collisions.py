"""How many points hold a pair of shapes, on MJX as on C MuJoCo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cemrl_jax.envs.engines import ModelFile, collisions, mjx, mujoco

PRESS = """
<mujoco>
  <option cone="elliptic" timestep="0.0025"><flag multiccd="{multiccd}"/></option>
  <asset>
    <mesh name="post" vertex="1 0 0  .5 .9 0  -.5 .9 0  -1 0 0  -.5 -.9 0  .5 -.9 0
      1 0 1  .5 .9 1  -.5 .9 1  -1 0 1  -.5 -.9 1  .5 -.9 1" scale=".1 .1 .1"/>
  </asset>
  <worldbody>
    <geom type="plane" size="1 1 1"/>
    <geom type="mesh" mesh="post" pos="0 0 .05"/>
    {elsewhere}
    <body pos="0 0 .15">
      <joint name="press" type="slide" axis="0 0 1"/>
      <geom type="box" size=".05 .05 .05" euler="0 0 20" mass="1"/>
    </body>
  </worldbody>
  <actuator><motor joint="press" gear="100"/></actuator>
</mujoco>
"""


def depths(engine, file):
    """How deep a box is pressed into a post, m, after each of some control steps."""
    simulator = engine.load(file)

    def step(state, _):
        state = simulator.step(state, -jnp.ones(1), {})
        return state, state.qpos[0]

    @jax.jit
    def press():
        start = simulator.start(jnp.full(1, 0.06), jnp.zeros(1))
        return jax.lax.scan(step, start, length=20)[1]

    return press()


@pytest.mark.parametrize(
    ("multiccd", "num_elsewhere"),
    [
        ("enable", 0),
        pytest.param("disable", 0, marks=pytest.mark.slow),
        ("disable", collisions.MOST // 4 + 4),
    ],
)
def test_a_box_is_pressed_into_a_mesh_as_deep_as_in_c(
    multiccd, num_elsewhere, tmp_path
):
    """Also where points of pairs that do not touch are more than the solver gets."""
    boxes = '<geom type="box" size=".1 .1 .1" pos="1 0 .2"/>' * num_elsewhere
    path = tmp_path / "press.xml"
    path.write_text(PRESS.format(multiccd=multiccd, elsewhere=boxes))
    file = ModelFile(str(path), 5, 8, 8, ())
    np.testing.assert_allclose(depths(mjx, file), depths(mujoco, file), atol=1e-6)


def test_boxes_that_are_out_of_reach_change_nothing(tmp_path, monkeypatch):
    """Also where they are more than the pairs that are looked at, and come first."""
    walls = [
        f'<geom type="box" size=".3 .02 .3" pos="0 {0.1 + 0.02 * number} .2"/>'
        for number in range(collisions.NEAREST + 4)
    ]
    stand = '<geom type="box" size=".1 .1 .05" pos="0 0 .05"/>'
    path = tmp_path / "press.xml"
    mesh = '<geom type="mesh" mesh="post" pos="0 0 .05"/>'
    text = PRESS.format(multiccd="disable", elsewhere="".join([*walls, stand]))
    path.write_text(text.replace(mesh, ""))
    file = ModelFile(str(path), 5, 8, 8, ())
    few = depths(mjx, file)
    monkeypatch.setattr(collisions, "NEAREST", len(walls) + 1)
    np.testing.assert_allclose(few, depths(mjx, file), atol=1e-7)
    assert -0.02 < few[-1] < 0  # it stands, pressed down a little
