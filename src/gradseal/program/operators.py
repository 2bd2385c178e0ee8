"""The operators a program may name, and nothing else.

A captured graph names ATen overloads (`aten.mm.default`); the interpreter looks each name up in this closed
list and runs no other. An operator is listed if it is a function of its arguments (and, for `RANDOM`, of the
generator that the step seeds), reads and writes no memory but its arguments' and results', and touches no
file, device or process. That holds of some kernels only for the arguments that autograd gives them: those
that take shapes, strides or indexes on trust have a guard, see `guards`, or are left out, such as `median`.
Whatever returns uninitialised memory is listed in `FILLED`: the interpreter hands out zeros instead.
Format: docs/spec/program.md, section 3.
"""

from __future__ import annotations

GETITEM = "getitem"
"""The one name that is no ATen operator: takes one result of an operator that has several."""

_TABLE = """
abs abs_ acos acosh _adaptive_avg_pool2d _adaptive_avg_pool2d_backward _adaptive_avg_pool3d
_adaptive_avg_pool3d_backward adaptive_max_pool2d adaptive_max_pool2d_backward add:Scalar,Tensor
add_:Scalar,Tensor addbmm addcdiv addcdiv_ addcmul addcmul_ addmm addmv addr alias all:default,dim amax amin
aminmax any:default,dim arange:default,start,start_step argmax argmin argsort:default,stable asin asinh atan
atan2 atanh avg_pool1d avg_pool2d avg_pool2d_backward avg_pool3d avg_pool3d_backward baddbmm
binary_cross_entropy binary_cross_entropy_backward binary_cross_entropy_with_logits bitwise_and:Scalar,Tensor
bitwise_not bitwise_or:Scalar,Tensor bitwise_xor:Tensor bmm cat ceil celu celu_ channel_shuffle
clamp:Tensor,default clamp_ clamp_max:Tensor,default clamp_min:Tensor,default clamp_min_:Tensor,default clone
col2im constant_pad_nd convolution convolution_backward copy_ cos cosh cumprod cumsum detach diagonal
diagonal_backward diagonal_scatter digamma div:Scalar,Scalar_mode,Tensor,Tensor_mode div_:Scalar,Tensor dot
elu elu_ elu_backward embedding embedding_dense_backward eq:Scalar,Tensor erf erfc erfinv exp exp_ expand
expand_as expm1 eye:default,m fill:Scalar fill_:Scalar,Tensor flip floor floor_ fmod:Scalar,Tensor frac full
full_like _fused_rms_norm gather ge:Scalar,Tensor gelu gelu_backward glu glu_backward gt:Scalar,Tensor
hardshrink hardshrink_backward hardsigmoid hardsigmoid_ hardsigmoid_backward hardswish hardswish_
hardswish_backward hardtanh hardtanh_ hardtanh_backward huber_loss huber_loss_backward hypot im2col
index:Tensor index_add index_fill:int_Scalar index_fill_:int_Scalar index_put index_put_ index_select isinf
isnan le:Scalar,Tensor leaky_relu leaky_relu_ leaky_relu_backward lerp:Scalar,Tensor lgamma lift_fresh
lift_fresh_copy linalg_vector_norm linspace log log_ log10 log1p log2 log_sigmoid_backward
log_sigmoid_forward _log_softmax _log_softmax_backward_data logaddexp logcumsumexp logical_and logical_and_
logical_not logical_not_ logical_or logical_or_ logical_xor logit logit_backward logsumexp lt:Scalar,Tensor
masked_fill:Scalar,Tensor masked_fill_:Scalar,Tensor max:default,dim,other max_pool2d_with_indices
max_pool2d_with_indices_backward max_pool3d_with_indices max_pool3d_with_indices_backward maximum
mean:default,dim min:default,dim,other minimum mish mish_backward mm mse_loss
mse_loss_backward mul:Scalar,Tensor mul_:Scalar,Tensor mv nan_to_num native_batch_norm
native_batch_norm_backward _native_batch_norm_legit:default,no_stats native_dropout_backward
native_group_norm native_group_norm_backward native_layer_norm native_layer_norm_backward ne:Scalar,Tensor
neg neg_ new_full new_ones new_zeros nll_loss2d_backward nll_loss2d_forward nll_loss_backward
nll_loss_forward norm:Scalar,ScalarOpt_dim ones ones_like pad permute pixel_shuffle pixel_unshuffle positive
pow:Scalar,Tensor_Scalar,Tensor_Tensor pow_:Scalar _prelu_kernel _prelu_kernel_backward prod:default,dim_int
reciprocal reciprocal_ reflection_pad1d reflection_pad1d_backward reflection_pad2d reflection_pad2d_backward
reflection_pad3d reflection_pad3d_backward relu relu_ remainder:Scalar,Tensor repeat replication_pad1d
replication_pad1d_backward replication_pad2d replication_pad2d_backward replication_pad3d
replication_pad3d_backward roll round:decimals,default round_ rsqrt rsqrt_ rsub:Scalar,Tensor _safe_softmax
scalar_tensor _scaled_dot_product_flash_attention_for_cpu
_scaled_dot_product_flash_attention_for_cpu_backward scatter:src,value scatter_:src,value scatter_add
scatter_add_ select:int select_backward select_scatter sgn sigmoid sigmoid_ sigmoid_backward sign silu silu_
silu_backward sin sinc sinh slice:Tensor slice_backward slice_scatter smooth_l1_loss smooth_l1_loss_backward
soft_margin_loss soft_margin_loss_backward _softmax _softmax_backward_data softplus softplus_backward
softshrink softshrink_backward sort:default,stable split:Tensor split_with_sizes sqrt sqrt_ square
squeeze:default,dim,dims squeeze_:dim stack std:correction std_mean:correction sub:Scalar,Tensor
sub_:Scalar,Tensor sum:default,dim_IntList t tan tanh tanh_ tanh_backward threshold threshold_backward
_to_copy topk trace transpose:int transpose_ tril triu trunc unbind:int unfold unsafe_split:Tensor
unsafe_split_with_sizes _unsafe_view unsqueeze unsqueeze_ upsample_bicubic2d upsample_bicubic2d_backward
upsample_bilinear2d upsample_bilinear2d_backward upsample_linear1d upsample_linear1d_backward
upsample_nearest1d upsample_nearest1d_backward upsample_nearest2d upsample_nearest2d_backward
upsample_nearest3d upsample_nearest3d_backward upsample_trilinear3d upsample_trilinear3d_backward
var:correction var_mean:correction view _weight_norm_interface _weight_norm_interface_backward
where:Scalar,ScalarOther,ScalarSelf,default,self xlogy:Tensor zero zero_ zeros zeros_like
"""
"""Operators by name, with their overloads where `default` is not the only one."""


def _overloads(table: str) -> frozenset[str]:
    names: set[str] = set()
    for word in table.split():
        operator, _, overloads = word.partition(":")
        names.update(f"aten.{operator}.{overload}" for overload in (overloads or "default").split(","))
    return frozenset(names)


FILLED = _overloads("empty:memory_format empty_like empty_strided new_empty new_empty_strided")
RANDOM = _overloads(
    "bernoulli:default,p bernoulli_:float,Tensor native_dropout normal_ rand rand_like randint:default,low "
    "randint_like:default,low_dtype randn randn_like randperm uniform_ exponential_"
)

OPERATORS: frozenset[str] = _overloads(_TABLE) | FILLED | RANDOM

REMOVABLE = frozenset(
    [
        "aten.detach.default",
        "aten.alias.default",
        "aten.empty.memory_format",
        "aten.empty_like.default",
        GETITEM,
    ]
)
"""Operators that do nothing but name a value: a graph drops them where nothing uses it."""

ADVICE: dict[str, str] = {
    "aten._local_scalar_dense.default": "the forward pass reads a tensor's value in Python; use "
    "torch.where, or move the decision out of the loss",
    "aten.div.out": "spectral norm writes its vectors so; it cannot be recorded yet",
    "aten.mkldnn_rnn_layer.default": "an LSTM on the CPU runs inside oneDNN and cannot be taken apart; use "
    "a GRU, or set torch.backends.mkldnn.enabled = False before recording (slower)",
}
"""For operators that are not listed, what to do instead."""
