"""What a call must leave as it was: weights, hooks, training modes, gradients and random states of a model."""

import random

import numpy as np
import torch


def state_of(model):
    """Everything a sweep must leave as it was."""
    # A Bridge's own list leaves out what it has no part for, such as the dropout of GPT-2's embeddings.
    modules = dict(getattr(model, "original_model", model).named_modules()) | dict(model.named_modules())
    numpy_state = np.random.get_state()[1]
    return {
        "hooks": {
            key: tuple(
                len(getattr(module, kind, ()))
                for kind in (
                    "fwd_hooks", "bwd_hooks", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks",
                    "_backward_pre_hooks",
                )
            )
            for key, module in modules.items()
        },
        "training": {key: module.training for key, module in modules.items()},
        "own methods": {
            key: id(module.__dict__["forward"]) for key, module in modules.items() if "forward" in module.__dict__
        },
        "parameters": {
            key: (value.requires_grad, value.grad is None, value.detach().numpy().tobytes())
            for key, value in (*model.named_parameters(), *model.named_buffers())
        },
        "configuration": str(model.cfg),
        "random": (torch.get_rng_state().numpy().tobytes(), random.getstate(), numpy_state.tobytes()),
        "gradients": torch.is_grad_enabled(),
    }  # fmt: skip


class Broken(Exception):
    pass


def snapshot(model):
    state = {key: value.clone() for key, value in model.state_dict().items()}
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    points = sum(len(getattr(module, "fwd_hooks", [])) for module in model.modules())
    return (
        state,
        hooks,
        points,
        [module.training for module in model.modules()],
        torch.get_rng_state(),
        torch.is_grad_enabled(),
    )


def same_snapshot(a, b):
    assert all(torch.equal(a[0][key], b[0][key]) for key in a[0])
    assert a[1:4] == b[1:4]
    assert torch.equal(a[4], b[4])
    assert a[5] == b[5]


def as_seen(model):
    """Everything of the user's that a call might change."""
    modules = list(model.modules())
    return (
        [module.training for module in modules],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
        [module._compiled_call_impl for module in modules],
        [
            (parameter.data_ptr(), parameter._version, parameter.requires_grad)
            for parameter in model.parameters()
        ],
        [parameter.grad is None for parameter in model.parameters()],
        str(model.cfg),
        torch.is_grad_enabled(),
        torch.get_rng_state().tolist(),
    )
