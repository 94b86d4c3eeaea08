"""What if this machine had graphics cards? Tensors that pretend to live on "cuda:0", "cuda:1", ... and mind it.

A pretend tensor is a real one of the CPU that carries a device's name, so that every number is the CPU's. Every call
of torch that Python makes passes through `__torch_function__`, which refuses what torch refuses: one operation on
tensors of two devices. Allowed are, as in torch, 0-dimensional CPU tensors beside others, CPU indices into a tensor
elsewhere, and copies that are asked for (`to`, `cpu`, `cuda`, `copy_`). It counts no seconds and no memory.

"mps" is Apple's, which has no float64: no tensor there may have it, nor become it on the way to another device.
"""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves, tree_map_only

CPU = torch.device("cpu")


class Pretend(torch.Tensor):
    """A tensor of the CPU that says it lives elsewhere."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return as_if_there(func, args, kwargs or {})


class Cards(TorchFunctionMode):
    """Inside, tensors can be made on a pretend device, as by `torch.arange(3, device="cuda:1")`."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return as_if_there(func, args, kwargs or {})


@contextmanager
def cards(free=lambda device: 2**33):
    """A machine with pretend cards, `free(device)` bytes on each."""
    kept = torch.cuda.mem_get_info
    torch.cuda.mem_get_info = lambda device=None: (free(whole(device)), 2**34)
    try:
        with Cards():
            yield
    finally:
        torch.cuda.mem_get_info = kept


def place_of(tensor):
    """The device a tensor is, or pretends to be, on."""
    return tensor.__dict__["there"] if isinstance(tensor, Pretend) else CPU


def put(tensor, device):
    """The same numbers on a device; the tensor itself where it is there already."""
    device = whole(device)
    if place_of(tensor) == device:
        return tensor
    with torch._C.DisableTorchFunctionSubclass():
        plain = tensor.clone().as_subclass(torch.Tensor)
        return plain if device == CPU else tagged(plain, device)


def tagged(tensor, device):
    """What torch made while the device was disregarded, said to be there."""
    has(device, dtype_of(tensor))
    made = tensor.as_subclass(Pretend)
    made.__dict__["there"] = device
    return made


def place_parameters(module, device):
    """The module's own parameters and buffers, put on a device once and for all."""
    for own in (module._parameters, module._buffers):
        for name, tensor in own.items():
            if tensor is None:
                continue
            with torch._C.DisableTorchFunctionSubclass():
                there = tagged(tensor.detach().clone().as_subclass(torch.Tensor), whole(device))
                if own is module._parameters:
                    there.requires_grad_(tensor.requires_grad)
                    there._is_param = True
            own[name] = there


def whole(device):
    """A device with its number: "cuda" is "cuda:0"."""
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device or "cuda")
    return device if device.type == "cpu" else torch.device(device.type, device.index or 0)


def has(device, dtype):
    """Raise TypeError, in torch's words, where the device has no numbers of this type."""
    if device.type == "mps" and dtype in (torch.float64, torch.complex128):
        raise TypeError(
            "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. Please use "
            "float32 instead."
        )


def as_if_there(func, args, kwargs):
    """The call, as torch would have it with the tensors where they say they are."""
    name = (resolve_name(func) or getattr(func, "__qualname__", "")).replace("torch.Tensor.", "")
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    device = kwargs.get("device")
    if name in ("device.__get__", "is_cuda.__get__", "get_device"):
        there = place_of(args[0])
        return {"device.__get__": there, "is_cuda.__get__": there != CPU}.get(name, there.index)
    if name in ("to", "cpu", "cuda", "type_as"):
        return moved(name, args, kwargs)
    if name in ("numpy", "__array__", "data_ptr") and place_of(args[0]) != CPU:
        raise TypeError(f"can't convert {place_of(args[0])} device type tensor to numpy: use Tensor.cpu()")
    if not tensors and device is None:
        return func(*args, **kwargs)
    if func is torch.autograd.grad:
        return gradients(*args, **kwargs)
    there = place_for(name, args, kwargs, tensors)
    if device is not None:
        there, kwargs = whole(device), {**kwargs, "device": CPU}
    with torch._C.DisableTorchFunctionSubclass():
        out = func(*args, **kwargs)
        if there == CPU:
            return out
        mine = {id(each) for each in tensors}
        return tree_map_only(
            torch.Tensor, lambda each: each if id(each) in mine else tagged(each, there), out
        )


def place_for(name, args, kwargs, tensors):
    """Where a call's result is; RuntimeError where its tensors are on two devices and may not be."""
    if name in ("__getitem__", "__setitem__", "index_put_", "index_put"):
        return place_of_indexed(name, args)
    if name in ("copy_", "expand_as", "view_as", "reshape_as"):
        return place_of(args[0])
    alone = name in (
        "torch.cat",
        "torch.stack",
        "torch.einsum",
        "torch.concat",
    )  # here 0-dimensional ones count too
    counted = {place_of(each) for each in tensors if alone or place_of(each) != CPU or dims(each)}
    if len(counted) > 1:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(sorted(map(str, counted)))}! (in {name})"
        )
    return counted.pop() if counted else CPU


def place_of_indexed(name, args):
    there = place_of(args[0])
    index = [each for each in tree_leaves(args[1]) if isinstance(each, torch.Tensor)]
    for each in index:
        if place_of(each) not in (CPU, there):
            raise RuntimeError(
                f"indices should be either on cpu or on the same device as the indexed tensor ({there}), "
                f"got {place_of(each)}"
            )
    values = args[2] if len(args) > 2 else None
    if index and isinstance(values, torch.Tensor) and place_of(values) != there and dims(values):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, {there}, got {place_of(values)} (in {name})"
        )
    return there


def moved(name, args, kwargs):
    """`to`, `cpu`, `cuda` and `type_as`: the one way from a device to another."""
    tensor, given = args[0], [*args[1:], *kwargs.values()]
    there, dtype = place_of(tensor), None
    if name == "cpu":
        return put(tensor, CPU)
    for each in given:
        if isinstance(each, torch.Tensor):
            there, dtype = place_of(each), dtype_of(each)
        elif isinstance(each, torch.dtype):
            dtype = each
        elif isinstance(each, str | torch.device) or type(each) is int:
            there = whole(each)
    if name == "cuda" and not given:
        there = whole("cuda")
    if dtype is not None and dtype != dtype_of(tensor):
        has(place_of(tensor), dtype)
        with torch._C.DisableTorchFunctionSubclass():
            other = torch.Tensor.to(tensor, dtype).as_subclass(torch.Tensor)
            return other if there == CPU else tagged(other, there)
    if kwargs.get("copy") and there == place_of(tensor):
        with Cards():
            return tensor.clone()
    return put(tensor, there)


def gradients(of, inputs, **options):
    """Gradients live where what they are of lives; what is differentiated may be elsewhere."""
    with torch._C.DisableTorchFunctionSubclass():
        found = torch.autograd.grad(of, inputs, **options)
        return tuple(
            each if each is None or place_of(one) == CPU else tagged(each, place_of(one))
            for each, one in zip(found, inputs, strict=True)
        )


def dims(tensor):
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.ndim


def dtype_of(tensor):
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.dtype
