/* Functions of one float32 number: `functions.py` and `activation_functions.py`, bit for bit.
 *
 * Each core takes a number as float64 and computes there; `rounded` makes a float32 of the result. In the order of
 * the Python modules. */

#ifndef GRADSEAL_FUNCTIONS_H
#define GRADSEAL_FUNCTIONS_H

#include "series.h"

#define EXP_END 128.0
#define TANH_END 20.0
#define ERF_END 3.9375
#define TAIL_END 16.0
#define GELU_LINEAR 0x1.9884533d43651p+0
#define GELU_CUBIC 0x1.2444f2a4d8b4bp-4
#define GELU_SLOPE 0x1.b6676bf7450f0p-3
#define DENSITY 0x1.9884533d43651p-2

INLINE double core_sqrt(double x) { return sqrt(x); }

INLINE double core_rsqrt(double x) {
    double root = (double)(float)sqrt(x);
    double refined = 2.0 / (x / root + root);
    /* At 0 and ∞ the step is 0/0 or ∞/∞. */
    refined = x == 0.0 ? copysign(INFINITY, x) : refined;
    return x == INFINITY ? 0.0 : refined;
}

INLINE double decay(double x) { return series_exp(between(-x, -EXP_END, EXP_END)); }

INLINE double core_exp(double x) { return series_exp(between(x, -EXP_END, EXP_END)); }

INLINE double core_sigmoid(double x) { return 1.0 / (decay(x) + 1.0); }

INLINE double core_tanh(double x) {
    double e = series_expm1(smaller(fabs(x), TANH_END) * 2.0);
    return copysign(e / (e + 2.0), x);
}

INLINE double at_ends(double x, double result, double start) {
    result = x == INFINITY ? INFINITY : result;
    result = x == start ? -INFINITY : result;
    return x < start ? NAN : result;
}

INLINE double core_log(double x) { return at_ends(x, series_log(x), 0.0); }

INLINE double core_log1p(double x) { return at_ends(x, copysign(series_log1p(x), x), -1.0); }

INLINE double core_softplus(double x) {
    return series_log1p(series_exp(-smaller(fabs(x), EXP_END))) + larger(x, 0.0);
}

INLINE double core_erf(double x) { return copysign(series_erf(smaller(fabs(x), ERF_END)), x); }

INLINE double core_gelu(double x) {
    double a = smaller(fabs(x), TAIL_END);
    double tail = tail_ratio(a) * tail_density(a);
    return (x < 0.0 ? tail : 1.0 - tail) * larger(x, -TAIL_END);
}

INLINE double core_gelu_tanh(double x) {
    double b = larger(x, -TAIL_END);
    return b / (decay((b * b * GELU_CUBIC + GELU_LINEAR) * b) + 1.0);
}

INLINE double core_silu(double x) {
    double b = larger(x, -EXP_END);
    return b / (decay(b) + 1.0);
}

INLINE double gated_slope(double fall, double inner) {
    double raised = fall + 1.0;
    return (fall / raised * inner + 1.0) / raised;
}

INLINE double core_silu_derivative(double x) {
    double b = between(x, -EXP_END, EXP_END);
    return gated_slope(decay(b), b);
}

INLINE double core_gelu_derivative(double x) {
    double a = smaller(fabs(x), TAIL_END);
    double left = (tail_ratio(a) - a * DENSITY) * tail_density(a);
    return x < 0.0 ? left : 1.0 - left;
}

INLINE double core_gelu_tanh_derivative(double x) {
    double b = between(x, -TAIL_END, TAIL_END);
    double square = b * b;
    double slope = (square * GELU_SLOPE + GELU_LINEAR) * b;
    return gated_slope(decay((square * GELU_CUBIC + GELU_LINEAR) * b), slope);
}

INLINE double mish_parts(double x, double *e) {
    *e = core_exp(x);
    return (*e + 2.0) * *e;
}

INLINE double core_mish(double x) {
    double e, n = mish_parts(x, &e);
    return n / (n + 2.0) * larger(x, -EXP_END);
}

INLINE double core_mish_derivative(double x) {
    double e, n = mish_parts(x, &e);
    double raised = n + 2.0;
    double slope = (e + 1.0) * e * 4.0 / raised * between(x, -EXP_END, EXP_END);
    return (slope + n) / raised;
}

INLINE double core_expm1(double x) { return copysign(series_expm1(between(x, -EXP_END, EXP_END)), x); }

INLINE double core_logit(double x) {
    double result = series_log(x / (1.0 - x));
    result = x == 0.0 ? -INFINITY : result;
    result = x == 1.0 ? INFINITY : result;
    return (x < 0.0) | (x > 1.0) ? NAN : result;
}

/* A float64 as float32, with one NaN, also for a NaN argument: what a core makes of its bits may be a number. */
INLINE float rounded(float x, double value) {
    float result = (float)value;
    return (result != result) | (x != x) ? __builtin_nanf("") : result;
}

#endif
