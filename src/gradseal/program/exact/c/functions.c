/* The functions of functions.h, over arrays. */

#include "functions.h"

#define LOOP(name)                                                                                        \
    EXPORT void gradseal_##name(const float *restrict x, float *restrict y, int64_t count) {              \
        for (int64_t i = 0; i < count; i++) y[i] = rounded(x[i], core_##name((double)x[i]));              \
    }

LOOP(sqrt)
LOOP(rsqrt)
LOOP(exp)
LOOP(sigmoid)
LOOP(tanh)
LOOP(log)
LOOP(log1p)
LOOP(softplus)
LOOP(erf)
LOOP(gelu)
LOOP(gelu_tanh)
LOOP(silu)
LOOP(silu_derivative)
LOOP(gelu_derivative)
LOOP(gelu_tanh_derivative)
LOOP(mish)
LOOP(mish_derivative)
LOOP(expm1)
LOOP(logit)
