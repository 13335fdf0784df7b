"""CEMRL's agent: its networks, and how each is applied and updated."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax import Array

from cemrl_jax.agents import sac
from cemrl_jax.agents.base import Policy
from cemrl_jax.agents.cemrl import losses
from cemrl_jax.agents.cemrl.bounds import Bound
from cemrl_jax.agents.cemrl.networks import Decoder
from cemrl_jax.agents.cemrl.policies import BoundPolicy, ContextPolicy
from cemrl_jax.agents.cemrl.types import (
    TRAINED,
    Batch,
    LearnerState,
    Posterior,
    Segments,
)
from cemrl_jax.agents.distributions import tanh_normal
from cemrl_jax.agents.networks import apply_module
from cemrl_jax.agents.sac import Actor, Critic, Temperature
from cemrl_jax.data import normalizer, replay
from cemrl_jax.data.types import Metrics, Params, Trainable, Transition
from cemrl_jax.data.vectors import Vector, pack, tree_of, unpack
from cemrl_jax.runtime.parallel import (
    average,
    gradient,
    gradient_step,
    shares_work,
    take_step,
    where,
)


class PolicyNoise(struct.PyTreeNode):
    """Standard normal draws of a SAC step, each `[B, action_size]`."""

    action: Array
    next_action: Array


class Noise(struct.PyTreeNode):
    """Standard normal draws of an update: `[B, K, Z]` of the ELBO, and of SAC."""

    world_model: Array
    policy: PolicyNoise


@dataclasses.dataclass(frozen=True)
class Agent:
    """Networks, optimisers and constants; all state is in `LearnerState`.

    Attributes:
      obs_size: size of an observation.
      seen_size: leading entries of it that the world model sees.
      action_size: size of an action.
      window_steps: T, transitions that the encoder sees.
      latent_size: Z.
      num_classes: K.
      encoder: see `cemrl_jax.agents.cemrl.encoders`.
      decoder: predicts next state and reward.
      class_prior: p(z | class).
      actor: the policy.
      critic: a pair of Q-functions.
      temperature: weight of the entropy.
      world_model_optimizer: of encoder, decoder and prior.
      policy_optimizer: of actor and critic, each with its own state.
      temperature_optimizer: of the temperature; does nothing where it is fixed.
      elbo: constants of the ELBO.
      discount: of future rewards.
      reward_scale: factor on rewards in SAC.
      target_rate: share of the critic that enters its target in a step.
      normalize_obs: whether actor and critic see observations normalised, not raw.
      target_entropy: entropy that the temperature aims at, nats.
      loss_weight_rate: share of new errors in the loss weights of a fused update.
      precision: of matrix products in the phases that train, "highest" or "default".
      bound: what the policy is told in place of z, which stands for it wherever the
        policy is concerned; None for what the encoder infers.
    """

    obs_size: int
    seen_size: int
    action_size: int
    window_steps: int
    latent_size: int
    num_classes: int
    encoder: Any
    decoder: Decoder
    class_prior: nn.Module
    actor: Actor
    critic: Critic
    temperature: Temperature
    world_model_optimizer: optax.GradientTransformation
    policy_optimizer: optax.GradientTransformation
    temperature_optimizer: optax.GradientTransformation
    elbo: losses.ElboSettings
    discount: float
    reward_scale: float
    target_rate: float
    normalize_obs: bool
    target_entropy: float
    loss_weight_rate: float
    precision: str
    bound: Bound | None = None

    # ------------------------------------------------------------ initial state

    def init(self, key: Array) -> LearnerState:
        """Returns a fresh learner; the key is consumed."""
        key_encoder, key_decoder, key_prior, key = jax.random.split(key, 4)
        key_actor, key_critic, key_temperature = jax.random.split(key, 3)
        obs, action = jnp.zeros((1, self.obs_size)), jnp.zeros((1, self.action_size))
        z = jnp.zeros((1, self.latent_size))
        context = jnp.zeros((1, self.context_size))
        window = jnp.zeros((1, self.window_steps, self.num_features))
        world_model = {
            "encoder": self.encoder.init(key_encoder, window),
            "decoder": self.decoder.init(
                key_decoder, obs[:, : self.seen_size], action, z
            ),
            "prior": self.class_prior.init(key_prior),
        }
        critic = self.critic.init(key_critic, obs, context, action)
        trainable = lambda optimizer, params: Trainable(  # noqa: E731
            params=params,
            opt_state=optimizer.init(params),
            skipped=jnp.zeros(2, jnp.int32),
        )
        weight = self.decoder.state_size / (1 + self.decoder.state_size)
        return LearnerState(
            world_model=trainable(self.world_model_optimizer, world_model),
            actor=trainable(
                self.policy_optimizer, self.actor.init(key_actor, obs, context)
            ),
            critic=trainable(self.policy_optimizer, critic),
            temperature=trainable(
                self.temperature_optimizer,
                self.temperature.init(key_temperature, context),
            ),
            # The original never copies the critic at the start; we do.
            target_critic=jax.tree.map(jnp.copy, critic),
            normalizer=normalizer.init(self.obs_size, self.action_size),
            loss_weights=jnp.array([1 - weight, weight]),
            num_updates=jnp.int32(0),
        )

    def pack(self, learner: LearnerState) -> LearnerState:
        """Returns a learner in the form in which many steps are taken.

        Its parameters and moments are vectors, and products on the same input are one;
        see `cemrl_jax.data.vectors` and `networks.Joined`.
        """
        join = self._rearrangements("join")
        return learner.replace(
            **{name: pack(getattr(learner, name), join[name]) for name in TRAINED},
            target_critic=Vector.of(self.critic.join(learner.target_critic)),
        )

    def unpack(self, learner: LearnerState) -> LearnerState:
        """Undoes `pack`."""
        split = self._rearrangements("split")
        return learner.replace(
            **{name: unpack(getattr(learner, name), split[name]) for name in TRAINED},
            target_critic=self.critic.split(tree_of(learner.target_critic)),
        )

    def _rearrangements(self, name: str) -> dict[str, Callable[[Params], Params]]:
        """Returns a method, "join" or "split", of each field of `TRAINED`.

        An encoder need not have them: then its products stay as they are.
        """
        encoder = getattr(self.encoder, name, lambda params: params)
        decoder = getattr(self.decoder, name)
        return {
            "world_model": lambda tree: (
                tree
                | {
                    "encoder": encoder(tree["encoder"]),
                    "decoder": decoder(tree["decoder"]),
                }
            ),
            "actor": getattr(self.actor, name),
            "critic": getattr(self.critic, name),
            "temperature": lambda tree: tree,
        }

    @property
    def num_features(self) -> int:
        """F, the size of a transition as the encoder sees it."""
        return 2 * self.seen_size + self.action_size + 1

    @property
    def context_size(self) -> int:
        """What the policy sees of the task: Z, or the size of what it is told."""
        return self.latent_size if self.bound is None else self.bound.size

    # ------------------------------------------------------------ applying

    def encode(self, params: Params, window: Array | Segments) -> Posterior:
        """See `losses.WorldModel`."""
        if isinstance(window, Segments):
            return self._encode_segments(params["encoder"], window)
        return apply_module(self.encoder, params["encoder"], window)

    def _encode_segments(self, params: Params, segments: Segments) -> Posterior:
        """Embeds each row of the segments once; returns the posterior `[S * W]`."""
        embed = functools.partial(apply_module, self.encoder, params, method="embed")
        num_windows = segments.exists.shape[1]
        exists = segments.exists.reshape(-1, self.window_steps)

        def overlap(leaf: Array, blank: Array) -> Array:
            """Returns windows `[S * W, T, ...]` of rows `[S, T + W - 1, ...]`."""
            parts = [leaf[:, w : w + self.window_steps] for w in range(num_windows)]
            windows = jnp.stack(parts, 1).reshape(*exists.shape, *blank.shape)
            there = exists.reshape(exists.shape + (1,) * blank.ndim)
            return jnp.where(there, windows, blank)

        # Nothing is one more row, or some: products like a multiple of 64.
        shape = segments.rows.shape[:2]
        size = math.prod(shape)
        rows = segments.rows.reshape(size, self.num_features)
        embedded = embed(jnp.pad(rows, ((0, 64 - size % 64), (0, 0))))
        windows = jax.tree.map(
            lambda leaf: overlap(
                leaf[:size].reshape(*shape, *leaf.shape[1:]), leaf[size]
            ),
            embedded,
        )
        return apply_module(self.encoder, params, windows, method="infer")

    def decode(
        self, params: Params, obs: Array, action: Array, z: Array
    ) -> tuple[Array, Array]:
        """See `losses.WorldModel`."""
        return apply_module(self.decoder, params["decoder"], obs, action, z)

    def prior(self, params: Params) -> tuple[Array, Array]:
        """See `losses.WorldModel`."""
        return apply_module(self.class_prior, params["prior"])

    def scale(self, learner: LearnerState, rows: Transition) -> Transition:
        """Returns transitions as the world model sees them: normalised, and cut."""
        scaled = normalizer.normalize(learner.normalizer, rows)
        return scaled.replace(
            obs=scaled.obs[..., : self.seen_size],
            next_obs=scaled.next_obs[..., : self.seen_size],
        )

    def seen(self, learner: LearnerState, obs: Array) -> Array:
        """Returns raw observations `[..., obs_size]` as actor and critic see them."""
        if not self.normalize_obs:
            return obs
        return normalizer.normalize_obs(learner.normalizer, obs)

    def sample_action(
        self, params: Params, obs: Array, z: Array, noise: Array
    ) -> tuple[Array, Array]:
        """Returns the policy's action `[..., A]` for a draw and its log-probability."""
        mean, log_std = apply_module(self.actor, params, obs, z)
        return tanh_normal(mean, log_std, noise)

    def make_batch(self, learner: LearnerState, rows: Transition) -> Batch:
        """Normalises windows of the replay `[B, T + 1]`, the last row being current.

        Transitions from before the episode become zeros in normalised units. The
        original normalises its zero padding when it trains but not when it acts; here
        both see the same.
        """
        scaled = self.scale(learner, rows)
        newest = lambda tree: jax.tree.map(lambda leaf: leaf[:, -1], tree)  # noqa: E731
        exists = replay.exists(newest(rows).step, self.window_steps)
        window = normalizer.features(jax.tree.map(lambda leaf: leaf[:, :-1], scaled))
        return Batch(
            window=jnp.where(exists[..., None], window, 0),
            current=newest(rows),
            scaled=newest(scaled),
        )

    def make_segments(
        self, learner: LearnerState, rows: Transition, weight: Array | None = None
    ) -> Batch:
        """Normalises segments of the replay `[S, T + W]`, the last W being current.

        Args:
          learner: the learner.
          rows: what `replay.segments` gathered.
          weight: `[S * W]`, see `Batch`.
        """
        scaled = self.scale(learner, rows)
        num_segments, length = rows.step.shape
        num_windows = length - self.window_steps

        def current(leaf: Array) -> Array:
            return leaf[:, -num_windows:].reshape(-1, *leaf.shape[2:])

        exists = replay.exists(current(rows.step), self.window_steps)
        return Batch(
            window=Segments(
                rows=normalizer.features(jax.tree.map(lambda x: x[:, :-1], scaled)),
                exists=exists.reshape(num_segments, num_windows, self.window_steps),
            ),
            current=jax.tree.map(current, rows),
            scaled=jax.tree.map(current, scaled),
            weight=weight,
        )

    def act(
        self,
        learner: LearnerState,
        obs: Array,
        z: Array,
        key: Array,
        quiet: Array | bool,
    ) -> Array:
        """Returns actions `[E, A]`, where `quiet` (`[]` or `[E]`) the policy's mean."""
        seen = self.seen(learner, obs)
        mean, log_std = apply_module(self.actor, learner.actor.params, seen, z)
        noise = jax.random.normal(key, mean.shape)
        quiet = jnp.asarray(quiet)[..., None]
        return jnp.tanh(mean + jnp.where(quiet, 0, jnp.exp(log_std) * noise))

    def policy(self, learner: LearnerState, deterministic: Array | bool) -> Policy:
        """Returns the policy that acts in environments."""
        if self.bound is not None:
            return BoundPolicy(self, self.bound, learner, deterministic)
        return ContextPolicy(self, learner, deterministic)

    # ------------------------------------------------------------ updating

    def world_model_noise(self, key: Array, batch_size: int) -> Array:
        """Draws noise `[B, K, Z]` for a `world_model_step`."""
        shape = (batch_size, self.num_classes, self.latent_size)
        return jax.random.normal(key, shape)

    def policy_noise(self, key: Array, batch_size: int) -> PolicyNoise:
        """Draws what `policy_step` needs for `batch_size` transitions."""
        action, next_action = jax.random.normal(key, (2, batch_size, self.action_size))
        return PolicyNoise(action=action, next_action=next_action)

    def world_model_step(
        self, learner: LearnerState, batch: Batch, noise: Array
    ) -> tuple[LearnerState, Metrics, Array]:
        """Takes one ELBO step on encoder, decoder and prior.

        Returns the learner, metrics, and the tasks z `[B, Z]` that the encoder
        inferred before the step.
        """
        world_model, (metrics, z) = gradient_step(
            losses.elbo_loss,
            self.world_model_optimizer,
            learner.world_model,
            self,
            batch,
            noise,
            learner.loss_weights,
            self.elbo,
        )
        return learner.replace(world_model=world_model), metrics, z

    def policy_step(
        self, learner: LearnerState, now: Transition, z: Array, noise: PolicyNoise
    ) -> tuple[LearnerState, Metrics]:
        """Takes one SAC step: temperature, critic, actor, target (cerml/sac.py).

        Args:
          learner: the learner.
          now: `[B]` transitions, raw.
          z: `[B, Z]` their tasks, used for the next observation as well; or what the
            policy is told in place of them.
          noise: draws of the policy.
        """
        actor = learner.actor
        now = now.replace(
            obs=self.seen(learner, now.obs), next_obs=self.seen(learner, now.next_obs)
        )
        _, log_prob = self.sample_action(actor.params, now.obs, z, noise.action)
        temperature_gradient, temperature_metrics = gradient(
            sac.temperature_loss,
            learner.temperature,
            functools.partial(apply_module, self.temperature),
            z,
            log_prob,
            self.target_entropy,
        )
        critic_loss = self._critic_loss(learner, now, z, noise.next_action)
        temperature, alpha, (critic_gradient, critic_metrics) = self._temperature_step(
            learner, z, temperature_gradient, critic_loss
        )
        critic = take_step(self.policy_optimizer, learner.critic, critic_gradient)
        actor, actor_metrics = gradient_step(
            sac.actor_loss,
            self.policy_optimizer,
            actor,
            self.sample_action,
            functools.partial(apply_module, self.critic, critic.params),
            now.obs,
            z,
            noise.action,
            alpha,
        )
        target_critic = optax.incremental_update(
            critic.params, learner.target_critic, self.target_rate
        )
        learner = learner.replace(
            actor=actor,
            critic=critic,
            temperature=temperature,
            target_critic=where(
                critic.skipped[1] == 0, target_critic, learner.target_critic
            ),
            num_updates=learner.num_updates + 1,
        )
        return learner, temperature_metrics | critic_metrics | actor_metrics

    def _critic_loss(
        self, learner: LearnerState, now: Transition, z: Array, noise: Array
    ) -> Callable[[Params, Array], tuple[Array, Metrics]]:
        """Returns the critic's loss for parameters and a temperature."""
        next_action, next_log_prob = self.sample_action(
            learner.actor.params, now.next_obs, z, noise
        )
        next_value = apply_module(
            self.critic, learner.target_critic, now.next_obs, z, next_action
        )

        def loss(params: Params, alpha: Array) -> tuple[Array, Metrics]:
            target = sac.critic_target(
                next_value,
                next_log_prob,
                alpha,
                self.reward_scale * now.reward,
                self.discount * (1 - now.terminated),
            )
            apply = functools.partial(apply_module, self.critic)
            return sac.critic_loss(params, apply, now.obs, z, now.action, target)

        return loss

    def _temperature_step(
        self,
        learner: LearnerState,
        z: Array,
        temperature_gradient: Params,
        critic_loss: Callable[[Params, Array], tuple[Array, Metrics]],
    ) -> tuple[Trainable, Array, tuple[Params, Metrics]]:
        """Takes the temperature's step.

        Where devices share the work, the averages of its gradient and the critic's are
        taken at once, though the critic's gradient depends on the new temperature.

        Returns:
          The new temperature, the one in force, and the critic's gradient with its
          metrics.
        """
        averaged, parts = average(temperature_gradient), None
        if shares_work() and not self.temperature.conditioned:
            averaged, parts = average(
                (
                    temperature_gradient,
                    sac.critic_gradient_by_temperature(
                        lambda *args: gradient(critic_loss, *args)[0], learner.critic
                    ),
                )
            )
        temperature = take_step(
            self.temperature_optimizer, learner.temperature, averaged
        )
        # One number acts at once; a network acts from the next step on.
        current = learner.temperature if self.temperature.conditioned else temperature
        alpha = jnp.exp(apply_module(self.temperature, current.params, z))
        if parts is None:
            local, metrics = gradient(critic_loss, learner.critic, alpha)
            return temperature, alpha, (average(local), metrics)
        joined = jax.tree.map(lambda fixed, slope: fixed + alpha * slope, *parts)
        metrics = critic_loss(tree_of(learner.critic.params), alpha)[1]
        return temperature, alpha, (joined, metrics)

    def noise(self, key: Array, batch_size: int) -> Noise:
        """Draws what an `update` needs; the key is consumed."""
        key_model, key_policy = jax.random.split(key)
        return Noise(
            world_model=self.world_model_noise(key_model, batch_size),
            policy=self.policy_noise(key_policy, batch_size),
        )

    def update(
        self,
        learner: LearnerState,
        batch: Batch,
        noise: Array | Noise,
        policy_batch: Batch | None = None,
    ) -> tuple[LearnerState, Metrics]:
        """Takes an ELBO step and a SAC step.

        Args:
          learner: the learner.
          batch: `[B]` transitions of the ELBO.
          noise: draws, or a key for them, which is consumed.
          policy_batch: `[B]` of SAC; None for the same, whose tasks are known.
        """
        if not isinstance(noise, Noise):
            noise = self.noise(noise, batch.size)
        before = learner.world_model.params
        learner, model_metrics, z = self.world_model_update(
            learner, batch, noise.world_model
        )
        now = batch
        if policy_batch is not None:
            now = policy_batch
            z = losses.infer_task(self.encode(tree_of(before), now.window))
        learner, policy_metrics = self.policy_step(
            learner, now.current, z, noise.policy
        )
        return learner, model_metrics | policy_metrics

    def world_model_update(
        self, learner: LearnerState, batch: Batch, noise: Array
    ) -> tuple[LearnerState, Metrics, Array]:
        """Takes a `world_model_step`, after which the loss weights follow its errors.

        With these no validation is needed to set them.
        """
        learner, metrics, z = self.world_model_step(learner, batch, noise)
        errors = jnp.stack([metrics["elbo/state_error"], metrics["elbo/reward_error"]])
        change = self.balanced_weights(average(errors)) - learner.loss_weights
        weights = learner.loss_weights + self.loss_weight_rate * change
        sound = jnp.isfinite(weights[0]) & jnp.isfinite(weights[1])
        weights = where(sound, weights, learner.loss_weights)
        return learner.replace(loss_weights=weights), metrics, z

    def balanced_weights(self, errors: Array) -> Array:
        """Returns loss weights `[2]` in proportion to state and reward errors `[2]`.

        The reward error counts once for each predicted entry of the state.
        """
        state, reward = errors[0], errors[1] * self.decoder.state_size
        return jnp.stack([state, reward]) / (state + reward)
