import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_transitions

from cemrl_jax.agents import sac
from cemrl_jax.agents.cemrl import losses
from cemrl_jax.agents.cemrl.types import Batch, Posterior

SETTINGS = losses.ElboSettings(
    kl_z_weight=0.1,
    kl_y_weight=0.2,
    component_constraint=False,
    state_difference=False,
    batch_size=40,
)
B, S, K, Z = 4, 3, 2, 1


@dataclasses.dataclass(frozen=True)
class Handmade:
    """A model without networks: the posterior is the parameters, z the prediction."""

    def encode(self, params: Any, window: Any) -> Posterior:
        del window
        return params

    def decode(self, params: Any, obs: Any, action: Any, z: Any) -> Any:
        del params
        return obs + z, action[..., 0] + z[..., 0]

    def prior(self, params: Any) -> Any:
        del params
        return jnp.array([[0.0], [1.0]]), jnp.full((K, Z), 0.5)


def posterior_of(seed: int = 0, steps: int = S) -> Posterior:
    rng = np.random.default_rng(seed)
    raw = rng.uniform(0.1, 1, size=(B, steps, K))
    return Posterior(
        probs=jnp.array(raw / raw.sum(-1, keepdims=True), jnp.float32),
        mean=jnp.array(rng.normal(size=(B, steps, K, Z)), jnp.float32),
        std=jnp.array(rng.uniform(0.2, 1, size=(B, steps, K, Z)), jnp.float32),
    )


def batch_of(seed: int = 0) -> Batch:
    rows = random_transitions(seed, B)
    base: Any = np.array([0, 1, 1, 0], np.int32)
    rows = rows.replace(task=rows.task.replace(base=base))
    window = jnp.zeros((B, 2, 6))
    return Batch(window=window, current=rows, scaled=jax.tree.map(jnp.asarray, rows))


def one_hot_posterior(classes: list[list[int]], mean: float, std: float) -> Posterior:
    probs = jax.nn.one_hot(jnp.array(classes), 3)
    mean_of = mean + jnp.arange(3.0)[:, None] + jnp.zeros((*probs.shape[:2], 3, Z))
    return Posterior(probs=probs, mean=mean_of, std=jnp.full_like(mean_of, std))


# ---------------------------------------------------------------- inferring


def test_infer_task_is_the_mean_of_the_most_likely_class():
    posterior = one_hot_posterior([[2], [0]], mean=0.5, std=0.3)
    np.testing.assert_allclose(losses.infer_task(posterior), [[2.5], [0.5]])


def test_infer_task_multiplies_the_gaussians_of_the_best_class_of_each_step():
    """Two steps, classes 0 and 2, scales taken as variances: precision-weighted."""
    posterior = one_hot_posterior([[0, 2]], mean=1.0, std=1.0)
    posterior = posterior.replace(std=posterior.std.at[0, 1].set(0.25))
    expected = (1.0 * 1 + 4.0 * 3) / 5
    np.testing.assert_allclose(losses.infer_task(posterior), [[expected]], rtol=1e-6)


def test_class_gaussians_of_one_step_are_its_own():
    posterior = posterior_of(steps=1)
    mean, std = losses.class_gaussians(posterior)
    np.testing.assert_array_equal(mean, posterior.mean[:, 0])
    np.testing.assert_array_equal(std, posterior.std[:, 0])


def test_class_gaussians_multiply_each_class_over_the_steps():
    posterior = posterior_of()
    mean, std = losses.class_gaussians(posterior)
    precision = 1 / np.asarray(posterior.std)
    np.testing.assert_allclose(std, 1 / precision.sum(1), rtol=1e-5)
    expected = (precision * np.asarray(posterior.mean)).sum(1) / precision.sum(1)
    np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-6)


def test_infer_class_is_what_the_product_over_the_steps_favours():
    probs = jnp.array([[[0.6, 0.4], [0.6, 0.4], [0.1, 0.9]]])
    posterior = posterior_of().replace(probs=probs)
    np.testing.assert_array_equal(losses.infer_class(posterior), [1])


# ---------------------------------------------------------------- elbo


def elbo_by_hand(
    posterior: Posterior, batch: Batch, noise: Any, weights: Any, constraint: bool
) -> Any:
    """The ELBO in plain loops, from the paper, or the original's with the true class.

    Returns likelihood and KL divergences together, the mean over the batch.
    """
    result = []
    prior_mean, prior_std = np.array([0.0, 1.0]), 0.5
    for b in range(B):
        per_step = []
        for s in range(S):
            total = 0.0
            for k in range(K):
                precision = 1 / np.asarray(posterior.std)[b, :, k, 0]
                std = 1 / precision.sum()
                mean = std * (precision * np.asarray(posterior.mean)[b, :, k, 0]).sum()
                z = mean + std * noise[b, k, 0]
                now = batch.scaled
                state = np.sum((now.obs[b] + z - now.next_obs[b]) ** 2)
                reward = (now.action[b, 0] + z - now.reward[b]) ** 2
                own_mean = float(posterior.mean[b, s, k, 0])
                own_std = float(posterior.std[b, s, k, 0])
                kl = (
                    np.log(prior_std / own_std)
                    + (own_std**2 + (own_mean - prior_mean[k]) ** 2)
                    / (2 * prior_std**2)
                    - 0.5
                )
                p = float(posterior.probs[b, s, k])
                likelihood = -weights[0] * state - weights[1] * reward
                if not constraint:
                    total += p * (likelihood - SETTINGS.kl_z_weight * kl)
                    total -= SETTINGS.kl_y_weight * p * np.log(p * K)
                elif k == batch.current.task.base[b]:
                    total += likelihood - SETTINGS.kl_z_weight * kl
                    total += SETTINGS.kl_y_weight * np.log(p)
            per_step.append(total)
        result.append(sum(per_step))
    return np.mean(result)


@pytest.mark.parametrize("constraint", [False, True])
def test_elbo_loss_is_the_paper_s_sum_over_steps_and_classes(constraint):
    settings = SETTINGS.replace(component_constraint=constraint)
    posterior, batch = posterior_of(), batch_of()
    noise = np.random.default_rng(5).normal(size=(B, K, Z)).astype(np.float32)
    weights = np.array([0.3, 0.7], np.float32)
    loss, (metrics, z) = jax.jit(losses.elbo_loss, static_argnums=1)(
        posterior, Handmade(), batch, noise, weights, settings
    )
    expected = elbo_by_hand(posterior, batch, noise, weights, constraint)
    np.testing.assert_allclose(metrics["elbo/loss"], -expected, rtol=1e-4)
    np.testing.assert_allclose(loss, -expected * SETTINGS.batch_size, rtol=1e-4)
    np.testing.assert_allclose(z, losses.infer_task(posterior), rtol=1e-5)
    product = 1 / (1 / np.asarray(posterior.std, np.float64)).sum(1)[..., 0]
    scale = (np.asarray(posterior.probs).mean(1) * product).sum(-1).mean()
    np.testing.assert_allclose(metrics["elbo/posterior_std"], scale, rtol=1e-5)


def test_elbo_loss_with_the_component_constraint_looks_at_the_true_class_only():
    posterior, batch = posterior_of(), batch_of()
    settings = SETTINGS.replace(component_constraint=True)
    weights, noise = jnp.array([0.3, 0.7]), jnp.zeros((B, K, Z))

    @jax.jit
    def gradient(posterior):
        loss = lambda *args: losses.elbo_loss(*args)[0]  # noqa: E731
        return jax.grad(loss)(posterior, Handmade(), batch, noise, weights, settings)

    moved = np.asarray(gradient(posterior).mean)
    base = batch.current.task.base
    for row in range(B):
        assert np.all(moved[row, :, base[row]] != 0)
        assert np.all(moved[row, :, 1 - base[row]] == 0)
    pushed = -np.asarray(gradient(posterior).probs)
    for row in range(B):
        assert np.all(pushed[row, :, base[row]] > 0)


def test_the_target_can_be_the_change_of_the_state():
    batch = batch_of()
    z = jnp.zeros((B, 1, Z))
    state, reward = losses.prediction_errors(None, Handmade(), batch, z, True)
    plain, same = losses.prediction_errors(None, Handmade(), batch, z, False)
    now = batch.scaled
    change = np.asarray(now.next_obs - now.obs)
    np.testing.assert_allclose(
        state[:, 0], np.square(now.obs - change).sum(-1), rtol=1e-5
    )
    np.testing.assert_allclose(plain[:, 0], np.square(change).sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(reward, same)


# ---------------------------------------------------------------- soft actor-critic


def test_temperature_rises_below_the_target_entropy_and_falls_above_it():
    apply = lambda params, z: params  # noqa: E731
    for log_prob, sign in ((3.0, -1), (-3.0, 1)):  # entropy -3 and 3, target 1
        args = (apply, jnp.zeros((5, 1)), jnp.full(5, log_prob), 1.0)
        slope = jax.grad(lambda *a: sac.temperature_loss(*a)[0])(jnp.float32(0), *args)
        assert np.sign(slope) == sign


def test_critic_target_is_the_soft_bellman_equation():
    target = sac.critic_target(
        next_value=jnp.array([[5.0, 1.0], [4.0, 2.0]]),
        next_log_prob=jnp.array([-1.0, 2.0]),
        alpha=jnp.float32(0.5),
        reward=jnp.array([10.0, 20.0]),
        mask=jnp.array([0.9, 0.0]),
    )
    np.testing.assert_allclose(target, [10 + 0.9 * (4 + 0.5), 20])


def test_critic_loss_adds_the_mean_squared_errors_of_both_critics():
    apply = lambda params, obs, z, action: params  # noqa: E731
    value = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    loss, metrics = sac.critic_loss(value, apply, None, None, None, jnp.zeros(2))  # pyright: ignore[reportArgumentType]
    assert float(loss) == pytest.approx(2.5 + 12.5)
    assert float(metrics["sac/critic_loss"]) == pytest.approx(7.5)


def test_actor_loss_is_alpha_log_prob_minus_the_smaller_value():
    sample = lambda params, obs, z, noise: (params, 2 * params[:, 0])  # noqa: E731
    value = lambda obs, z, action: jnp.stack([action[:, 0], -action[:, 0]])  # noqa: E731
    zero = jnp.zeros((2, 1))
    loss, _ = sac.actor_loss(
        jnp.array([[1.0], [3.0]]),
        sample,
        value,
        obs=zero,
        z=zero,
        noise=zero,
        alpha=jnp.float32(0.5),
    )
    assert float(loss) == pytest.approx((1 + 1 + 3 + 3) / 2)


def test_gradients_do_not_flow_to_the_other_arguments():
    log_prob, target, zero = jnp.ones(3), jnp.ones(3), jnp.zeros((3, 1))
    to_log_prob = jax.grad(
        lambda x: sac.temperature_loss(
            jnp.float32(1), lambda params, z: params, zero, x, 1.0
        )[0]
    )(log_prob)
    to_target = jax.grad(
        lambda x: sac.critic_loss(
            jnp.zeros((2, 3)),
            lambda params, *_: params,
            zero,
            zero,
            zero,
            x,
        )[0]
    )(target)
    np.testing.assert_array_equal(to_log_prob, 0)
    np.testing.assert_array_equal(to_target, 0)
