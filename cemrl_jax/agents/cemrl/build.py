"""The agent that a configuration describes."""

import optax

from cemrl_jax.agents.cemrl import losses
from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.bounds import CONTEXTS, Bound
from cemrl_jax.agents.cemrl.encoders import ENCODERS
from cemrl_jax.agents.cemrl.networks import Decoder, FixedPrior, LearntPrior
from cemrl_jax.agents.sac import Actor, Critic, Temperature
from cemrl_jax.config import Config
from cemrl_jax.config.fields import lookup
from cemrl_jax.envs import NonStationaryEnv


def agent_for(config: Config, env: NonStationaryEnv) -> Agent:
    """Builds the agent that a valid configuration describes for its environment."""
    bound = CONTEXTS[config.sac.context](config.encoder.latent_size, env)
    return make_agent(config, env.obs_size, env.action_size, bound)


def make_agent(
    config: Config, obs_size: int, action_size: int, bound: Bound | None = None
) -> Agent:
    """Builds the agent that a valid configuration describes.

    Args:
      config: the configuration.
      obs_size: size of an observation.
      action_size: size of an action.
      bound: what the policy is told in place of z, see `bounds.CONTEXTS`.
    """
    encoder, sac = config.encoder, config.sac
    prior = config.elbo.prior
    sizes = (encoder.num_classes, encoder.latent_size)
    kind = lookup("encoder.kind", encoder.kind, ENCODERS)
    merge = {"merge": encoder.merge} if encoder.kind == "shared_y" else {}
    hidden = (sac.hidden_size,) * sac.num_layers
    return Agent(
        obs_size=obs_size,
        seen_size=encoder.obs_size or obs_size,
        action_size=action_size,
        window_steps=encoder.window_steps,
        latent_size=encoder.latent_size,
        num_classes=encoder.num_classes,
        encoder=kind(*sizes, encoder.width_factor, **merge),
        decoder=Decoder(config.elbo.decoder_width_factor, config.elbo.state_size),
        class_prior=LearntPrior(*sizes)
        if prior == "learnt"
        else FixedPrior(*sizes, config.elbo.prior_std),
        actor=Actor(hidden, action_size),
        critic=Critic(hidden, sac.critic_layer_norm),
        temperature=Temperature(
            sac.temperature == "conditioned", sac.initial_temperature
        ),
        world_model_optimizer=_adam(config, config.elbo.learning_rate, of_policy=False),
        policy_optimizer=_adam(config, sac.learning_rate),
        temperature_optimizer=optax.set_to_zero()
        if sac.temperature == "fixed"
        else _adam(config, sac.learning_rate),
        elbo=losses.ElboSettings(
            kl_z_weight=config.elbo.kl_z_weight,
            kl_y_weight=config.elbo.kl_y_weight,
            component_constraint=config.elbo.component_constraint,
            state_difference=config.elbo.state_difference,
            batch_size=sac.batch_size,
        ),
        discount=sac.discount,
        reward_scale=sac.reward_scale,
        target_rate=sac.target_rate,
        normalize_obs=sac.normalize_obs,
        target_entropy=-sac.target_entropy_factor * action_size,
        loss_weight_rate=1 / config.elbo.loss_weight_memory,
        precision=config.train.precision,
        bound=bound,
    )


def _adam(
    config: Config, learning_rate: float, of_policy: bool = True
) -> optax.GradientTransformation:
    """Returns Adam, with the learning rate that the configuration describes."""
    train = config.train
    if train.final_learning_rate == 1:
        return optax.adam(learning_rate)
    fused = of_policy or train.schedule == "fused"
    updates = config.num_updates if fused else train.num_world_model_steps
    schedule = optax.linear_schedule(
        learning_rate,
        learning_rate * train.final_learning_rate,
        train.num_epochs * updates,
    )
    return optax.adam(schedule)
